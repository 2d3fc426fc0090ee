"""The policy as a model of lmms-eval (extra `understanding`), found by it under the name `blip3o_next`.

Tasks ask by `generate_until` or, for multiple choice, by `loglikelihood`. Answers are greedy whatever a task's settings
say of sampling. Left out: several rounds, videos, audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.policies.blip3o_next.reader import ImageReader
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.run.folder import policy_folder

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance

MANIFEST = ModelManifest("blip3o_next", simple_class_path="blip3o_grpo.reading.lmms.BLIP3oNextReader")
"""What lmms-eval's entry point `lmms_eval.models` takes."""
DEFAULT_NEW_TOKENS = 512
"""Where a task names no number."""


class BLIP3oNextReader(lmms):
    """`--model blip3o_next --model_args pretrained=POLICY`.

    Args:
        pretrained: `tiny`, a folder in the released layout, a hub repository, or a run folder.
        device: of torch; None: the GPU, if there is one.
        dtype: `float32` or `bfloat16`.
        batch_size: of lmms-eval's command line; without effect, questions are asked one by one.
        max_batch_size: likewise.

    Raises:
        ConfigError, CheckpointError: no such policy, or one that cannot read pictures.
    """

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"model_args: dtype is {dtype!r}; it is float32 or bfloat16")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.reader = ImageReader.from_pretrained(policy_folder(pretrained), dtype=getattr(torch, dtype), device=device)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answer to each request, cut before the first of its task's stop words."""
        answers = []
        for context, settings, visuals, number, task, split in (request.args for request in requests):
            codes = self._see(visuals, task, split, number)
            tokens = settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS
            until = settings.get("until") or []
            answer = cut(self.reader.generate(context, codes, tokens), [until] if isinstance(until, str) else until)
            self.cache_hook.add_partial("generate_until", (context, settings), answer)
            answers.append(answer)
        return answers

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Of each request, minus the log-probability of its continuation (nats) and whether it is the greedy one.

        A loss in spite of the name: lmms-eval takes the choice with the smallest number
        (https://github.com/EvolvingLMMs-Lab/lmms-eval/issues/370).
        """
        found = []
        for context, target, visuals, number, task, split in (request.args for request in requests):
            words = target if isinstance(target, str) else target(self.task_dict[task][split][number])
            codes = self._see(visuals, task, split, number)
            ((total, greedy),) = self.reader.loglikelihoods(context, codes, [words])
            found.append((-total, greedy))
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused: none of the tasks that are named here has several rounds."""
        raise NotImplementedError("blip3o_next answers one question at a time; leave tasks of several rounds out")

    def _see(self, visuals: Any, task: str, split: str, number: int) -> list[list[int]]:
        return self.reader.see(
            [np.asarray(as_rgb(picture)) for picture in visuals(self.task_dict[task][split][number])]
        )


def cut(answer: str, until: Sequence[str]) -> str:
    """The answer up to the first of the stop words that is not empty."""
    for word in filter(None, until):
        answer = answer.partition(word)[0]
    return answer
