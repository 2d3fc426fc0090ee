"""`blip3o-grpo ablate` and `rescore`: the commands, without the work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blip3o_grpo.errors import one_line_errors

console = Console()


@one_line_errors
def ablate(
    study: Annotated[str, typer.Argument(help="Study (YAML): base recipe, arms, seeds.")],
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A tiny version of it, in a folder of its own: does everything work?")
    ] = False,
) -> None:
    """Train with several reward sets, measure each on all rewards, and say what is better; resumes by itself."""
    from blip3o_grpo.configs.study import load_study_config

    config = load_study_config(study, smoke=smoke)
    from blip3o_grpo.study.ablate import run_study

    result = run_study(config, console)
    if result.matrix:
        heads = (f"{column.name}, n={len(column.prompt_ids)}" for column in result.matrix.columns)
        table = Table("arm", *map(escape, heads), title="held-out means")
        for arm in result.matrix.arms:
            table.add_row(escape(arm), *(_cell(result.matrix, arm, column) for column in result.matrix.columns))
        console.print(table)
        console.print(
            f"[green]+[/green] better, [red]-[/red] worse than {escape(result.matrix.baseline)} "
            f"after correction for {len(result.matrix.against_baseline)} comparisons, = no difference shown"
        )
        for sentence in result.conclusions.recommendation:
            console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    for name, reason in result.failed.items():
        log = result.folder / "arms" / name / "train.log"
        console.print(f"[bold red]failed:[/bold red] {name}: {escape(reason)} ({log})", soft_wrap=True, highlight=False)
    console.print(f"report: {result.folder / 'report.html'}", soft_wrap=True, highlight=False)
    if result.failed:
        raise typer.Exit(1)


def _cell(matrix, arm: str, column) -> str:  # noqa: ANN001 - types of modules that load numpy and more
    """Mean and interval, and below it the difference from the baseline."""
    cell, comparison = matrix.cell(arm, column), matrix.comparison(arm, column)
    lines = [_estimate(cell.mean, cell, ".3f")]
    if comparison:
        mark = {"better": "[green]+[/green]", "worse": "[red]-[/red]", "": "="}[comparison.verdict]
        lines.append(f"{mark} {_estimate(comparison.difference, comparison, '+.3f')}")
    return "\n".join(lines)


def _estimate(mean: float, found, form: str) -> str:  # noqa: ANN001 - as above
    if found.low is None:
        return f"{mean:{form}} (no interval, n={found.num_prompts})"
    return f"{mean:{form}} ({found.low:{form}} to {found.high:{form}})"


@one_line_errors
def rescore(
    run: Annotated[str, typer.Argument(help="Run folder with recorded rollouts.")],
    rewards: Annotated[
        str, typer.Option(help="Comma-separated: the run's own rewards, registered names, or module:Class.")
    ] = "",
    config: Annotated[Path | None, typer.Option(help="YAML with reward sections, as in a recipe.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON to write, CSV beside it; default: rescore.json in RUN.")
    ] = None,
) -> None:
    """Score a run's recorded images with other rewards: what would they have taught? Trains nothing."""
    from blip3o_grpo.study.rescore import rescore as rescore_run
    from blip3o_grpo.study.rescore import write_rescored

    names = [name.strip() for name in rewards.split(",") if name.strip()]
    rescored = rescore_run(run, names, config)
    table = Table("reward", "groups", "mean", "std", "no spread", "at 0", "at 1", title="within groups")
    for reward in rescored.rewards():
        label = reward.name + (" (recorded)" if reward.name in rescored.recorded else "")
        numbers = (_number(value, ".3f") for value in (reward.mean, reward.within_std))
        shares = (_number(share, ".0%") for share in (reward.without_spread, reward.at_zero, reward.at_one))
        table.add_row(label, str(reward.num_groups), *numbers, *shares)
    console.print(table)
    table = Table("rewards", "groups", "Pearson", "Spearman", "same order", "same best", title="agreement")
    for pair in rescored.pairs():
        values = (pair.pearson, pair.spearman, pair.same_order, pair.same_best)
        numbers = (_number(value, ".2f") for value in values)
        table.add_row(f"{pair.first} and {pair.second}", str(pair.num_groups), *numbers)
    console.print(table)
    if not rescored.all_images:
        console.print(
            "The run kept only the best and the worst image of each group: new rewards are judged on those two, which "
            "look more alike to rewards than the whole group would. Record with rollout.record_images=all for more.",
            soft_wrap=True,
        )
    written = write_rescored(rescored, out or Path(run) / "rescore.json")
    console.print(f"written: {written} and {written.with_suffix('.csv')}", soft_wrap=True, highlight=False)


def _number(value: float | None, form: str) -> str:
    """A dash for what no group allows: None, or the NaN of a mean over nothing."""
    return "–" if value is None or math.isnan(value) else format(value, form)
