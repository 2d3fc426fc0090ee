"""What a study found, in plain words; every sentence rests on comparisons that hold after the correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blip3o_grpo.configs.study import START, GoalSection
from blip3o_grpo.study.goals import Judgement, best_of, describe, judge, listed, told_apart
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
    """The only arm that the goals leave."""
    candidates: list[str]
    """Arms that the goals leave: the recommended one, or several that the study did not tell apart."""
    recommendation: list[str]
    """Sentences."""


def conclude(matrix: Matrix, planned: Sequence[str], goals: Sequence[GoalSection]) -> Conclusions:
    """Findings of all arms and a recommendation, with what it does not rest on.

    Args:
        matrix: of the finished arms.
        planned: all arms of the study.
        goals: what the recommendation rests on (`blip3o_grpo.study.goals` says how).
    """
    cells = {(cell.arm, cell.suite, cell.reward): cell for cell in matrix.cells}
    by_arm = {arm: [c for c in matrix.against_baseline if c.arm == arm] for arm in matrix.arms}
    findings = [_finding(arm, found, matrix.baseline, cells) for arm, found in by_arm.items() if found]
    judgements = judge(matrix, goals)
    candidates = best_of(matrix, goals, [judgement.arm for judgement in judgements if judgement.eligible])
    advice = [*_advice(matrix, goals, judgements, candidates), *_caveats(matrix, planned)]
    return Conclusions(findings, candidates[0] if len(candidates) == 1 else None, candidates, advice)


def label_candidates(matrix: Matrix, goals: Sequence[GoalSection], conclusions: Conclusions) -> dict[str, str]:
    """Each arm that the goals leave: `recommended`, or that of several no difference or no winner is shown."""
    arms = conclusions.candidates
    if len(arms) <= 1:
        return dict.fromkeys(arms, "recommended")
    shown = "no winner" if told_apart(matrix, goals, arms) else "no difference shown"
    return dict.fromkeys(arms, f"{shown} between {listed(arms)}")


def _finding(arm: str, found: Sequence[Comparison], baseline: str, cells: dict[tuple[str, str, str], Cell]) -> Finding:
    better = [c for c in found if c.verdict == "better"]
    worse = [c for c in found if c.verdict == "worse"]
    open_ = [c.name for c in found if not c.verdict]
    parts = []
    if better:
        parts.append(f"better than {baseline} in {listed(describe(c) for c in better)}")
    if worse:
        parts.append(f"worse in {listed(describe(c) for c in worse)}" if better else _worse(worse, baseline))
    if open_:
        parts.append(f"no difference shown in {listed(open_)}")
    rose = [c for c in better if cells[arm, c.suite, c.reward].weight > 0]
    suspicious = ""
    if rose and worse:
        suspicious = (
            f"{listed(dict.fromkeys(c.reward for c in rose))} was trained on and rose while "
            f"{listed(c.name for c in worse)} fell: a sign of reward hacking, look at the pictures"
        )
    return Finding(arm, "; ".join(parts) + ".", suspicious)


def _worse(worse: Sequence[Comparison], baseline: str) -> str:
    return f"worse than {baseline} in {listed(describe(c) for c in worse)}"


def _advice(
    matrix: Matrix, goals: Sequence[GoalSection], judgements: Sequence[Judgement], candidates: Sequence[str]
) -> list[str]:
    if not goals:
        return [
            "Nothing is recommended, as no goal is left: every reward that is measured is trained on by some arm, and "
            "a reward that is paid for rises whether or not the images are better. Name `goals` in the study file, "
            "with a measure that no arm trains on."
        ]
    names = listed(f"{goal.name} (margin {goal.margin:g})" for goal in goals)
    if not candidates:
        said = [f"{judgement.arm}: {judgement.reason}." for judgement in judgements]
        return [f"Nothing is recommended. Against {matrix.baseline}, in the goals {names}:", *said]
    chosen = [judgement for judgement in judgements if judgement.arm in candidates]
    sentences = [
        f"Train with {' or '.join(candidates)}. What counts are the goals {names}.",
        *(
            f"{judgement.arm} is better than {matrix.baseline} in {listed(describe(c) for c in judgement.gains)}, and "
            "in no goal is a fall by more than the margin left open."
            for judgement in chosen
        ),
    ]
    for judgement in judgements:
        if not judgement.eligible:
            sentences.append(f"Not {judgement.arm}: {judgement.reason}.")
        elif judgement.arm not in candidates:
            sentences += [_against(matrix, goals, arm, judgement.arm) for arm in candidates]
    sentences += [
        _against(matrix, goals, arm, rival) for index, arm in enumerate(candidates) for rival in candidates[index + 1 :]
    ]
    return sentences


def _against(matrix: Matrix, goals: Sequence[GoalSection], arm: str, rival: str) -> str:
    """What the goals say of two arms."""
    names = {goal.name for goal in goals}
    found = [c for c in matrix.between(arm, rival) if c.name in names]
    said = [
        f"{arm} is {verdict} than {rival} in {listed(describe(c) for c in told)}"
        for verdict in ("better", "worse")
        if (told := [c for c in found if c.verdict == verdict])
    ]
    if said:
        return f"{'; '.join(said)}."
    return (
        f"Between {arm} and {rival} no difference was shown in any goal: this study gives no reason to prefer "
        "one to the other."
    )


def _caveats(matrix: Matrix, planned: Sequence[str]) -> list[str]:
    """What the reader must know about runs that are missing."""
    sentences = []
    if missing := [arm for arm in planned if arm not in matrix.arms]:
        sentences.append(f"Not compared, because no run of it has finished: {listed(missing)}.")
    seeds = {cell.arm: len(cell.seeds) for cell in matrix.cells if cell.arm != START}
    if max(seeds.values()) == 1:
        sentences.append(
            "Every arm was trained with one seed only: the differences are those of these runs, and runs with another "
            "seed may differ otherwise."
        )
    elif single := [arm for arm, number in seeds.items() if number == 1]:
        sentences.append(
            f"Only one run has finished of {listed(single)}: how much seeds differ is taken from the other arms."
        )
    return sentences
