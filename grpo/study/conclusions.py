"""What a study found, in plain words; every sentence rests on comparisons that hold after the correction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blip3o_grpo.configs.study import START
from blip3o_grpo.study.matrix import Cell, Comparison, Matrix


@dataclass(frozen=True)
class Finding:
    """One arm's result against the baseline."""

    arm: str
    text: str
    suspicious: str
    """Where it looks like reward hacking: a trained reward rose while another measure fell. Empty: nowhere."""


@dataclass(frozen=True)
class Conclusions:
    """The findings, and which arm they speak for."""

    findings: list[Finding]
    recommended: str | None
    recommendation: list[str]
    """Sentences."""


def conclude(matrix: Matrix, planned: Sequence[str]) -> Conclusions:
    """Findings of all arms and a recommendation, with what it does not rest on.

    Recommended is, among the arms that are worse than the baseline in nothing, the one that is better in most columns;
    ties go to the larger sum of those differences.

    Args:
        matrix: of the finished arms.
        planned: all arms of the study.
    """
    baseline = matrix.baseline
    by_arm = {
        arm: [c for c in matrix.against_baseline if c.arm == arm]
        for arm in matrix.arms
        if any(c.arm == arm for c in matrix.against_baseline)
    }
    cells = {(cell.arm, cell.suite, cell.reward): cell for cell in matrix.cells}
    findings = [_finding(arm, found, baseline, cells) for arm, found in by_arm.items()]
    safe = {
        arm: [c for c in found if c.verdict == "better"]
        for arm, found in by_arm.items()
        if arm != START and not any(c.verdict == "worse" for c in found)
    }
    caveats = _caveats(matrix, planned)
    best = max(safe, key=lambda arm: (len(safe[arm]), sum(c.difference for c in safe[arm])), default=None)
    if best is None or not safe[best]:
        return Conclusions(findings, None, [*_none_recommended(by_arm, baseline), *caveats])
    advice = _recommend(best, safe[best], by_arm, matrix.between_arms, baseline)
    return Conclusions(findings, best, [*advice, *caveats])


def describe(comparison: Comparison) -> str:
    """`signs/ocr +0.213 (0.150 to 0.276)`."""
    return (
        f"{comparison.suite}/{comparison.reward} {comparison.difference:+.3f} "
        f"({comparison.low:+.3f} to {comparison.high:+.3f})"
    )


def _finding(arm: str, found: Sequence[Comparison], baseline: str, cells: dict[tuple[str, str, str], Cell]) -> Finding:
    better = [c for c in found if c.verdict == "better"]
    worse = [c for c in found if c.verdict == "worse"]
    open_ = [f"{c.suite}/{c.reward}" for c in found if not c.verdict]
    parts = []
    if better:
        parts.append(f"better than {baseline} in {_list(describe(c) for c in better)}")
    if worse:
        parts.append(f"worse in {_list(describe(c) for c in worse)}" if better else _worse(worse, baseline))
    if open_:
        parts.append(f"no difference shown in {_list(open_)}")
    rose = [c for c in better if cells[arm, c.suite, c.reward].weight > 0]
    suspicious = ""
    if rose and worse:
        suspicious = (
            f"{_list(dict.fromkeys(c.reward for c in rose))} was trained on and rose while "
            f"{_list(f'{c.suite}/{c.reward}' for c in worse)} fell: a sign of reward hacking, look at the pictures"
        )
    return Finding(arm, "; ".join(parts) + ".", suspicious)


def _worse(worse: Sequence[Comparison], baseline: str) -> str:
    return f"worse than {baseline} in {_list(describe(c) for c in worse)}"


def _recommend(
    best: str,
    better: Sequence[Comparison],
    by_arm: dict[str, list[Comparison]],
    between: Sequence[Comparison],
    baseline: str,
) -> list[str]:
    measures = {f"{c.suite}/{c.reward}" for c in by_arm[best]}
    sentences = [
        f"Train with {best}: it is better than {baseline} in {len(better)} of {len(measures)} measures, "
        f"{_list(describe(c) for c in better)}, and not shown to be worse in any.",
    ]
    alike = []
    for rival in (arm for arm in by_arm if arm not in (best, START)):
        ahead, behind = [], []
        for c in between:
            if {c.arm, c.against} == {best, rival} and c.verdict:
                (ahead if (c.verdict == "better") == (c.arm == best) else behind).append(c)
        said = [
            f"{best} is {word} than {rival} in {_list(_by(c) for c in found)}"
            for word, found in (("better", ahead), ("worse", behind))
            if found
        ]
        if said:
            sentences.append(f"{'; '.join(said)}.")
        else:
            alike.append(rival)
    if alike:
        sentences.append(
            f"Between {best} and {_list(alike)} no difference was shown in any measure: this study gives no reason to "
            f"prefer {best} to {'it' if len(alike) == 1 else 'them'}."
        )
    return sentences


def _caveats(matrix: Matrix, planned: Sequence[str]) -> list[str]:
    """What the reader must know about runs that are missing."""
    sentences = []
    if missing := [arm for arm in planned if arm not in matrix.arms]:
        sentences.append(f"Not compared, because no run of it has finished: {_list(missing)}.")
    seeds = {cell.arm: len(cell.seeds) for cell in matrix.cells if cell.arm != START}
    if max(seeds.values()) == 1:
        sentences.append(
            "Every arm was trained with one seed only: the differences are those of these runs, and runs with another "
            "seed may differ otherwise."
        )
    elif single := [arm for arm, number in seeds.items() if number == 1]:
        sentences.append(
            f"Only one run has finished of {_list(single)}: how much seeds differ is taken from the other arms."
        )
    return sentences


def _none_recommended(by_arm: dict[str, list[Comparison]], baseline: str) -> list[str]:
    losing = [arm for arm, found in by_arm.items() if any(c.verdict == "worse" for c in found)]
    winning = [arm for arm in losing if any(c.verdict == "better" for c in by_arm[arm])]
    if winning:
        return [
            f"No arm can be recommended as it is: {_list(winning)} gained in some measures and lost in others "
            f"against {baseline}. The findings above say which; the weights decide how to trade one for the other."
        ]
    return [
        f"No arm was shown to be better than {baseline} in anything. More steps, prompts or images per prompt would "
        "show smaller differences."
    ]


def _by(comparison: Comparison) -> str:
    return f"{comparison.suite}/{comparison.reward} (by {abs(comparison.difference):.3f})"


def _list(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
