"""From scored images to rows: every reward, and how much the images of one prompt differ, prompt by prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from blip3o_grpo.card.verdicts import Row, judge
from blip3o_grpo.evaluation.statistics import estimate
from blip3o_grpo.rollout import RolloutGroup
from blip3o_grpo.run.image_signals import group_diversity

DIVERSITY = "image/diversity"
"""As training logs it: the root mean square distance between the images of a group, 0 to 1."""
MARGINS = {DIVERSITY: 0.02}
"""Where it is not `MARGIN`."""
MARGIN = 0.05

Table = dict[str, dict[str, float | None]]
"""Prompt id to measure to value; None: the measure does not apply to the prompt."""


def measure_groups(groups: Sequence[RolloutGroup]) -> Table:
    """Each prompt's mean scores, and the diversity of its images where there are two or more."""
    table: Table = {}
    for group in groups:
        row: dict[str, float | None] = {}
        for name in group.rollouts[0].rewards:
            known = [value for rollout in group.rollouts if (value := rollout.rewards[name]) is not None]
            row[name] = float(np.mean(known)) if known else None
        if len(group.rollouts) > 1:
            row[DIVERSITY] = group_diversity([rollout.image for rollout in group.rollouts])
        table[group.prompt.id] = row
    return table


def make_rows(
    before: Table,
    after: Table,
    sets: Mapping[str, Sequence[str]],
    weights: Mapping[str, float],
    margins: Mapping[str, float],
    lower: Collection[str] = (),
) -> list[Row]:
    """One row for each measure on each set of prompts, on the prompts that both policies have a value for.

    Args:
        before: of the starting policy.
        after: of the trained one.
        sets: name to ids of prompts.
        weights: of what the run trained on.
        margins: by measure; `MARGIN` for others.
        lower: measures of which less is better.
    """
    rows = []
    for prompts, ids in sets.items():
        names = dict.fromkeys(name for id_ in ids for name in after.get(id_, {}))
        for name in names:
            pairs = [(before.get(id_, {}).get(name), after.get(id_, {}).get(name)) for id_ in ids]
            known = [(old, new) for old, new in pairs if old is not None and new is not None]
            if not known:
                continue
            change = estimate([new - old for old, new in known], paired=True)
            margin = margins.get(name, MARGIN)
            first, second = (estimate(list(values)) for values in zip(*known, strict=True))
            weight = weights.get(name, 0.0)
            verdict = judge(change, margin, weight, name in lower)
            rows.append(Row(prompts, name, weight, first, second, change, margin, verdict, name in lower))
    return rows
