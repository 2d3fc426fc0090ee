"""Is a training prompt in a test file? Compares the words, and for GenEval records also what they ask for.

Left out on purpose: similarity of any degree. Two prompts are the same or they are not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from blip3o_grpo.rewards.geneval.records import is_record, parse_record
from blip3o_grpo.rewards.types import RewardError
from blip3o_grpo.rollout.types import Prompt

MIRRORED = {"right of": "left of", "below": "above"}


@dataclass(frozen=True)
class Overlap:
    """A training prompt that a test file holds."""

    prompt: str
    test_prompt: str
    reason: Literal["same words", "same meaning"]


class HeldOut:
    """Prompts that must stay out of training.

    Raises:
        RewardError: a prompt's GenEval record is malformed.
    """

    def __init__(self, prompts: Iterable[Prompt]):
        self._by_text: dict[str, str] = {}
        self._by_meaning: dict[Hashable, str] = {}
        for prompt in prompts:
            self._by_text[normalised(prompt.text)] = prompt.text
            if (asked := meaning(prompt.metadata, prompt.text)) is not None:
                self._by_meaning[asked] = prompt.text

    def find(self, text: str, metadata: Mapping[str, Any]) -> Overlap | None:
        """The test prompt with the same words, else one with the same meaning, else None.

        Raises:
            RewardError: the GenEval record in `metadata` is malformed.
        """
        if (same := self._by_text.get(normalised(text))) is not None:
            return Overlap(text, same, "same words")
        if (same := self._by_meaning.get(meaning(metadata, text))) is not None:
            return Overlap(text, same, "same meaning")
        return None


def find_overlaps(train: Iterable[Prompt], test: Iterable[Prompt]) -> list[Overlap]:
    """All prompts of `train` that are in `test`, in the order of `train`.

    Raises:
        RewardError: a prompt's GenEval record is malformed.
    """
    held_out = HeldOut(test)
    found = (held_out.find(prompt.text, prompt.metadata) for prompt in train)
    return [overlap for overlap in found if overlap]


def normalised(text: str) -> str:
    """What is left of a text without case, white space, punctuation and quotes of any kind.

    Compatibility forms count as the plain letter (NFKC). A text of nothing but punctuation stays as it is.
    """
    unquoted = "".join(c for c in text if unicodedata.category(c) != "Sk")  # accents on their own, used as quotes
    letters = unicodedata.normalize("NFKC", unquoted).casefold()
    kept = "".join(c for c in letters if unicodedata.category(c)[0] in "LMNS")
    return kept or text.strip()


def meaning(metadata: Mapping[str, Any], prompt: str) -> Hashable | None:
    """What a GenEval record asks for, independent of wording and of the order of its clauses; None if there is none.

    "A left of B" and "B right of A" mean the same.

    Raises:
        RewardError: the record is malformed; names the prompt.
    """
    if not is_record(metadata):
        return None
    try:
        record = parse_record(metadata)
    except RewardError as error:
        raise RewardError(f"prompt {prompt!r}: {error}") from error
    objects = [(clause.class_name, clause.count, clause.color or "") for clause in record.include]
    relations = []
    for index, clause in enumerate(record.include):
        if clause.position:
            relation, target = clause.position
            pair = (objects[index], objects[target])
            mirrored = relation in MIRRORED
            relations.append((MIRRORED[relation], *pair[::-1]) if mirrored else (relation, *pair))
    excluded = [(clause.class_name, clause.count) for clause in record.exclude]
    return tuple(sorted(objects)), tuple(sorted(relations)), tuple(sorted(excluded))
