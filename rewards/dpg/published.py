"""DPG-Bench totals as their authors publish them, in percent: lines to hold one's own table against, not a ranking."""

from __future__ import annotations

from blip3o_grpo.rewards.suites import PublishedRow

BLIP3O_NEXT = "https://arxiv.org/abs/2510.15857"


def _row(model: str, overall: float, source: str) -> PublishedRow:
    return PublishedRow(model, overall, {}, False, source)


PUBLISHED = (
    _row("Janus Pro 7B", 84.19, "https://arxiv.org/abs/2501.17811"),
    _row("BLIP3o 8B", 81.60, "https://arxiv.org/abs/2505.09568"),
    _row("BLIP3o-NEXT 3B, before GRPO", 82.36, "the authors' slides"),
    _row("BLIP3o-NEXT 3B, after GRPO", 81.92, "the authors' slides"),
    _row("X-Omni", 87.65, "https://arxiv.org/abs/2507.22058"),
    _row("Qwen-Image", 88.32, "https://arxiv.org/abs/2508.02324"),
)
