"""`blip3o-grpo ablate` and `rescore`: the commands, without the work."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.terminal import in_words, plain, show

console = Console()


@one_line_errors(resumes=True)
def ablate(
    study: Annotated[str, typer.Argument(help="Study (YAML): base recipe, arms, seeds.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes for every trial: section.key=value; or of the study: study_dir, seeds, trials..."),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A tiny version of it, in a folder of its own: does everything work?")
    ] = False,
) -> None:
    """Train with several reward sets, measure each on all rewards, and say what is better; resumes by itself."""
    from blip3o_grpo import api

    try:
        result = api.ablate(api.load_study(study, *(overrides or []), smoke=smoke), console)
    except KeyboardInterrupt:
        command = ["blip3o-grpo", "ablate", study, *(overrides or []), *(["--smoke"] if smoke else [])]
        show(console, f"to go on: {shlex.join(command)}")
        raise
    if result.matrix:
        table = Table("arm", title="held-out means")
        for column in result.matrix.columns:
            table.add_column(plain(f"{column.name}, n={len(column.prompt_ids)}"))
        for arm in result.matrix.arms:
            table.add_row(plain(arm), *(_cell(result.matrix, arm, column) for column in result.matrix.columns))
        console.print(table)
        compared = f"{result.matrix.baseline} after correction for {len(result.matrix.against_baseline)} comparisons"
        marks = (("+", "green"), " better, ", ("-", "red"), f" worse than {compared}, = no difference shown")
        show(console, *marks)
        for sentence in result.conclusions.recommendation:
            show(console, sentence)
    for name, reason in result.failed.items():
        log = result.folder / "arms" / name / "train.log"
        show(console, ("failed:", "bold red"), f" {name}: {reason} ({log})")
    show(console, f"report: {result.folder / 'report.html'}")
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
        str, typer.Option(help="Comma-separated: the run's own rewards, registered names, or module:name.")
    ] = "",
    config: Annotated[Path | None, typer.Option(help="YAML with reward sections, as in a recipe.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON to write, CSV beside it; default: rescore.json in RUN.")
    ] = None,
) -> None:
    """Score a run's recorded images with other rewards: what would they have taught? Trains nothing."""
    from blip3o_grpo import api
    from blip3o_grpo.study.rescore import write_rescored

    names = [name.strip() for name in rewards.split(",") if name.strip()]
    rescored = api.rescore(run, names, config, console=console)
    table = Table(
        Column("reward", overflow="fold"), "groups", "mean", "std", "no spread", "at 0", "at 1", title="within groups"
    )
    for reward in rescored.rewards():
        label = reward.name + (" (recorded)" if reward.name in rescored.recorded else "")
        numbers = (in_words(value) for value in (reward.mean, reward.within_std))
        shares = (in_words(share, ".0%") for share in (reward.without_spread, reward.at_zero, reward.at_one))
        table.add_row(plain(label), str(reward.num_groups), *numbers, *shares)
    console.print(table)
    table = Table(
        Column("rewards", overflow="fold"),
        "groups",
        "Pearson",
        "Spearman",
        "same order",
        "same best",
        title="agreement",
    )
    for pair in rescored.pairs():
        values = (pair.pearson, pair.spearman, pair.same_order, pair.same_best)
        numbers = (in_words(value, ".2f") for value in values)
        table.add_row(plain(f"{pair.first} and {pair.second}"), str(pair.num_groups), *numbers)
    console.print(table)
    console.print("In brackets: 95 % interval over n prompts.")
    if not rescored.all_images:
        console.print(
            "The run kept only the best and the worst image of each group: new rewards are judged on those two, which "
            "look more alike to rewards than the whole group would. Record with rollout.record_images=all for more.",
            soft_wrap=True,
        )
    written = write_rescored(rescored, out or Path(run) / "rescore.json")
    show(console, f"written: {written} and {written.with_suffix('.csv')}")
