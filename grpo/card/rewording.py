"""Held-out prompts in other words: what was learnt should not hang on the exact sentences that a policy trained on.

Only words around a prompt are added, so whatever its metadata, its quotations and its objects ask for stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blip3o_grpo.policies import PromptEncoder, PromptError
from blip3o_grpo.rollout import Prompt

FORMS = ("please draw {text}", "{text}, as a picture", "this is {text}")
"""Taken in turn."""
SUFFIX = "~reworded"
"""Of a reworded prompt's id, on which its seeds hang."""


def reword(prompts: Sequence[Prompt], encoder: PromptEncoder) -> list[Prompt]:
    """Each prompt in one of `FORMS`; left out where the result does not fit the policy's context."""
    reworded = []
    for index, prompt in enumerate(prompts):
        text = FORMS[index % len(FORMS)].format(text=prompt.text)
        try:
            encoder.encode(text)
        except PromptError:
            continue
        reworded.append(replace(prompt, id=f"{prompt.id}{SUFFIX}", text=text))
    return reworded
