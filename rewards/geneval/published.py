"""GenEval results as their authors publish them: lines to hold one's own table against, not a ranking.

All are for GenEval's 553 prompts, its detector and its colour classifier. Rows marked as rewritten were measured on
prompts that a language model had made longer. A score that is not known is left out, never filled in.
"""

from __future__ import annotations

from blip3o_grpo.rewards.geneval.records import TAGS
from blip3o_grpo.rewards.suites import PublishedRow


def _row(
    model: str, overall: float, scores: tuple[float, ...] = (), *, rewritten: bool = False, source: str
) -> PublishedRow:
    return PublishedRow(model, overall, dict(zip(TAGS, scores, strict=True)) if scores else {}, rewritten, source)


BAGEL = "https://arxiv.org/abs/2505.14683"
BLIP3O_NEXT = "https://arxiv.org/abs/2510.15857"

PUBLISHED = (
    _row("FLUX.1-dev", 0.82, (0.98, 0.93, 0.75, 0.93, 0.68, 0.65), rewritten=True, source=BAGEL),
    _row("MetaQueries XL", 0.80, rewritten=True, source="https://arxiv.org/abs/2504.06256"),
    _row("BAGEL", 0.88, (0.98, 0.95, 0.84, 0.95, 0.78, 0.77), rewritten=True, source=BAGEL),
    _row("BLIP3o 8B", 0.84, source="https://arxiv.org/abs/2505.09568"),
    _row("BLIP3o-NEXT 3B, before GRPO", 0.82, source="the authors' slides"),
    _row("BLIP3o-NEXT 3B, after GRPO", 0.91, (0.99, 0.95, 0.88, 0.90, 0.92, 0.79), source=BLIP3O_NEXT),
)
