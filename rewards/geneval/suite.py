"""The suite `geneval`: the official verdict, per kind of prompt, beside what others have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.detectors.image_sides import IMAGE_SIDES
from blip3o_grpo.rewards.geneval.published import PUBLISHED
from blip3o_grpo.rewards.geneval.results import check_results_path, write_results
from blip3o_grpo.rewards.geneval.scoring import COUNTING_THRESHOLD, THRESHOLD
from blip3o_grpo.rewards.suites import ResultFormat, Suite

_MASK2FORMER = ("mmdet", "transformers")
"""Detectors that are the benchmark's own."""


def _strict(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The official verdict; detector and colours are those of the settings.

    With the official detector, thresholds are the official ones whatever a recipe trains with; other detectors keep the
    recipe's, and the table says so.
    """
    dropped = ("threshold", "counting_threshold") if _detector(options) in _MASK2FORMER else ()
    return {**{name: value for name, value in options.items() if name not in dropped}, "score": "strict"}


def _notes(options: Mapping[str, Any]) -> Sequence[str]:
    detector, colors = _detector(options), options.get("colors", "clip")
    return [f"Detector {detector}, colours {colors}, strict verdict.", _departures(options)]


def _departures(options: Mapping[str, Any]) -> str:
    """Above which scores detections counted, and what else departs from the official way of looking."""
    threshold, counting = options.get("threshold", THRESHOLD), options.get("counting_threshold", COUNTING_THRESHOLD)
    sides = (options.get("detector_options") or {}).get("image_sides", IMAGE_SIDES)
    others = [
        *(() if _detector(options) in _MASK2FORMER else ("another detector",)),
        *(() if options.get("colors", "clip") == "clip" else ("other colours",)),
        *(() if (threshold, counting) == (THRESHOLD, COUNTING_THRESHOLD) else ("other thresholds",)),
        *(() if tuple(sides) == IMAGE_SIDES else (f"images scaled to {sides[0]} x {sides[1]} px",)),
    ]
    official = f"not the official verdict: {', '.join(others)}" if others else "the official ones"
    return f"Detections count above {threshold:g}, in counting above {counting:g}: {official}."


def _detector(options: Mapping[str, Any]) -> str:
    return options.get("detector", "transformers")


SUITE = Suite(
    reward="geneval",
    recipe="tiny_geneval.yaml",
    needs="a GenEval record: the keys `tag` and `include`",
    uses_run_options=True,
    options=_strict,
    counts_correct=True,
    published=PUBLISHED,
    notes=_notes,
    published_notes=(
        "Published rows are their authors' own, on GenEval's 553 prompts with Mask2Former and CLIP: other prompts and "
        "another detector than here unless you chose the same, so not a ranking. † prompts rewritten by a language "
        "model. – not known.",
    ),
    results=ResultFormat("GenEval's", check_results_path, write_results),
)
