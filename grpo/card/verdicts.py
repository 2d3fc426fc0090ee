"""One verdict about one change: paired non-inferiority with a margin, as pure functions.

"No significant difference" is no proof that nothing was lost: of few prompts nothing is ever significant. So a row is
`not worse` only where its interval excludes a fall by the margin or more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from blip3o_grpo.evaluation.statistics import Estimate

Verdict = Literal["better", "not worse", "worse", "cannot tell"]
MEANINGS: dict[Verdict, str] = {
    "better": "the whole interval of the change is above 0",
    "not worse": "a fall by the margin or more is excluded",
    "worse": "the whole interval is below 0, and a fall by the margin or more is not excluded",
    "cannot tell": "a rise and a fall by the margin or more are both possible, or there is no interval",
}
"""What each verdict says, the first that applies."""


@dataclass(frozen=True)
class Row:
    """One measure on one set of prompts, of the starting policy and of the trained one."""

    prompts: str
    """Name of the set of prompts."""
    measure: str
    """Name of the reward, `image/diversity`, or what a suite that reads measures."""
    weight: float
    """With which the run trained on it; 0: it did not."""
    before: Estimate
    after: Estimate
    change: Estimate
    """Paired by prompt, text or question."""
    margin: float
    """Smallest fall that matters, in units of the measure."""
    verdict: Verdict
    lower_is_better: bool = False
    """Of the measure itself, whatever its weight says."""

    @property
    def name(self) -> str:
        """`heldout/ocr`."""
        return f"{self.prompts}/{self.measure}"


def judge(change: Estimate, margin: float, weight: float = 0.0, lower_is_better: bool = False) -> Verdict:
    """The verdict about a change of a measure.

    Args:
        change: with its interval.
        margin: above 0.
        weight: with which the run trained on it: below 0, less is better; else more is.
        lower_is_better: turns that round.
    """
    if change.low is None or change.high is None:
        return "cannot tell"
    low, high = (change.low, change.high) if (weight >= 0) != lower_is_better else (-change.high, -change.low)
    if low > 0:
        return "better"
    if low > -margin:
        return "not worse"
    return "worse" if high < 0 else "cannot tell"


def summary(rows: Iterable[Row]) -> str:
    """`2 better, 3 not worse, 1 worse`."""
    verdicts = [row.verdict for row in rows]
    counts = {verdict: verdicts.count(verdict) for verdict in MEANINGS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
