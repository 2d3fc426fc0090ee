"""The suite `geneval`: the official verdict, per kind of prompt, beside what others have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blip3o_grpo.rewards.geneval.published import PUBLISHED
from blip3o_grpo.rewards.geneval.results import check_results_path, write_results
from blip3o_grpo.rewards.suites import ResultFormat, Suite


def _notes(options: Mapping[str, Any]) -> Sequence[str]:
    detector, colors = options.get("detector", "transformers"), options.get("colors", "clip")
    return [f"Detector {detector}, colours {colors}, strict verdict."]


SUITE = Suite(
    reward="geneval",
    recipe="tiny_geneval.yaml",
    needs="a GenEval record: the keys `tag` and `include`",
    uses_run_options=True,
    options={"score": "strict"},
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
