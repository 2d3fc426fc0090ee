"""Rows of made-up cards."""

from __future__ import annotations

from blip3o_grpo.card.verdicts import Row, judge
from blip3o_grpo.evaluation.statistics import Estimate


def row(prompts, measure, change, weight=0.0, margin=0.05, before=0.5):
    """A row whose interval reaches 0.03 either way of the change."""
    found = Estimate(change, change - 0.03, change + 0.03, 16)
    ends = [Estimate(mean, mean - 0.1, mean + 0.1, 16) for mean in (before, before + change)]
    return Row(prompts, measure, weight, *ends, found, margin, judge(found, margin))
