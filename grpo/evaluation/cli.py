"""`blip3o-grpo steps`: the command, without the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.terminal import in_words, plain

console = Console()


@one_line_errors
def steps(
    policy: Annotated[str, typer.Argument(help="`tiny`, a folder in the released layout, or a run folder.")],
    config: Annotated[str | None, typer.Option(help="Recipe with the settings; default: those of the run.")] = None,
    numbers: Annotated[
        str | None, typer.Option("--steps", help="Such as 4,8,30; default: those of rollouts and of evaluations.")
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option("--guidance-interval", help="Such as 0.3,1: noise levels with guidance, against all of them."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompt file, all of it; default: the run's held-out.")] = None,
    num_prompts: Annotated[int | None, typer.Option(min=2, help="Only so many prompts.")] = None,
    images: Annotated[int | None, typer.Option(min=3, help="Images per prompt; default: the group size.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
) -> None:
    """Do rewards judge images of few diffusion steps as those of many? Same tokens, same noise, rank correlations."""
    from blip3o_grpo import api
    from blip3o_grpo.configs import ConfigError

    try:
        chosen = None if numbers is None else [int(number) for number in numbers.split(",")]
    except ValueError:
        raise ConfigError(f"--steps {numbers}: expected whole numbers with commas, such as 4,8,30") from None
    try:
        low_high = None if guidance is None else tuple(float(level) for level in guidance.split(","))
        if low_high is not None and len(low_high) != 2:
            raise ValueError
    except ValueError:
        raise ConfigError(f"--guidance-interval {guidance}: expected LOW,HIGH, such as 0.3,1") from None
    result = api.compare_steps(
        policy,
        chosen,
        guidance_interval=low_high,
        recipe=config,
        overrides=overrides or [],
        prompts=prompts,
        num_prompts=num_prompts,
        images=images,
        console=Console(stderr=True) if as_json else console,
    )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    table = Table(
        Column("reward", overflow="fold"),
        "steps",
        "guided",
        "mean",
        "rank correlation in groups",
        "spread lost",
        "same order",
        "over all images",
        "decode s/image",
        title=f"{result.num_prompts} prompts x {result.images_per_prompt} images, against the last row of each",
        caption="In brackets: 95 % interval over n prompts.",
    )
    for row in result.rows:
        found = row.agreement
        cells = ["–"] * 4
        if found is not None:
            shares = (in_words(share, ".0%") for share in (found.spread_lost, found.same_order))
            cells = [in_words(found.within, ".2f"), *shares, in_words(found.overall, ".2f")]
        table.add_row(
            plain(row.reward),
            str(row.num_steps),
            _levels(row.guidance_interval),
            in_words(row.mean),
            *cells,
            f"{row.decode_seconds:.3f}",
        )
    console.print(table)


def _levels(interval: tuple[float, float]) -> str:
    return "always" if interval == (0, 1) else f"{interval[0]:g} to {interval[1]:g}"
