"""WISE scores as published: lines to hold one's own table against, not a ranking, and never across judges.

Legacy rows were judged by GPT-4o-2024-05-13, verified ones by Qwen3.5-35B-A3B.
"""

from __future__ import annotations

from blip3o_grpo.rewards.suites import PublishedRow
from blip3o_grpo.rewards.wise.records import RANGES

WISE = "https://github.com/PKU-YuanGroup/WISE"


def _row(model: str, overall: float, scores: tuple[float, ...] = (), source: str = WISE) -> PublishedRow:
    return PublishedRow(model, overall, dict(zip(RANGES, scores, strict=True)) if scores else {}, False, source)


LEGACY = (
    _row("FLUX.1-dev", 0.50, (0.48, 0.58, 0.62, 0.42, 0.51, 0.35)),
    _row("MetaQuery-XL", 0.55, (0.56, 0.55, 0.62, 0.49, 0.63, 0.41)),
    _row("UniWorld-V1", 0.55, (0.53, 0.55, 0.73, 0.45, 0.59, 0.41)),
    _row("Janus-Pro-7B", 0.35, (0.30, 0.37, 0.49, 0.36, 0.42, 0.26)),
    _row("BLIP3o 8B", 0.62, source="https://arxiv.org/abs/2505.09568"),
)
VERIFIED = (
    _row("FLUX.1-dev", 0.4160, (0.5225, 0.4000, 0.5333, 0.1750, 0.3750, 0.2417)),
    _row("Bagel", 0.3520, (0.4125, 0.3500, 0.3083, 0.2000, 0.4417, 0.2583)),
    _row("Janus-Pro-7B", 0.3340, (0.3700, 0.3500, 0.2833, 0.2833, 0.4000, 0.2333)),
)
