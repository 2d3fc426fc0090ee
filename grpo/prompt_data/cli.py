"""`blip3o-grpo prompts`: make training prompts, and check that none of them is in a test file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.terminal import show

if TYPE_CHECKING:
    from blip3o_grpo.prompt_data.overlap import HeldOut

app = typer.Typer(help="Make training prompts, and check them against test prompts.", no_args_is_help=True)
console = Console()

Out = Annotated[Path, typer.Option(help="File to write (.jsonl).")]
Count = Annotated[int, typer.Option(help="Number of prompts.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same file.")]
ExcludeFiles = Annotated[
    list[Path] | None, typer.Option("--exclude-file", help="Test prompts (.txt, .jsonl) to keep out; repeatable.")
]


@app.command()
@one_line_errors
def geneval(
    out: Out,
    count: Count,
    seed: Seed = 0,
    tag_share: Annotated[
        list[str] | None,
        typer.Option(
            help="tag=proportion, on any scale; repeatable. Tags not named get none. Default: position=7, "
            "counting=5, color_attr=3, colors=1, two_object=1."
        ),
    ] = None,
    exclude_file: ExcludeFiles = None,
) -> None:
    """GenEval training prompts with their records, from the benchmark's templates."""
    from blip3o_grpo.prompt_data import geneval_prompts

    shares = read_shares(tag_share) if tag_share else None
    records = geneval_prompts.generate(count, seed, shares, _held_out(exclude_file))
    _write(out, records)
    tags = Counter(record["tag"] for record in records)
    show(console, f"{len(records)} prompts ({', '.join(f'{tag} {n}' for tag, n in sorted(tags.items()))}): {out}")


@app.command()
@one_line_errors
def text(out: Out, count: Count, seed: Seed = 0, exclude_file: ExcludeFiles = None) -> None:
    """Text-rendering training prompts: a scene, something that carries text, and one to six quoted words."""
    from blip3o_grpo.prompt_data import text_prompts

    records = text_prompts.generate(count, seed, _held_out(exclude_file))
    _write(out, records)
    show(console, f"{len(records)} prompts: {out}")


@app.command()
@one_line_errors
def check(
    train: Annotated[Path, typer.Argument(help="Training prompts (.txt, .jsonl).")],
    test: Annotated[Path, typer.Argument(help="Test prompts (.txt, .jsonl).")],
) -> None:
    """List the training prompts that a test file holds, in the same words or with the same GenEval record.

    Exit code 1 if there are any.
    """
    from blip3o_grpo.prompt_data.overlap import find_overlaps
    from blip3o_grpo.rollout.prompts import load_prompts

    train_prompts, test_prompts = load_prompts(train), load_prompts(test)
    overlaps = find_overlaps(train_prompts, test_prompts)
    for overlap in overlaps:
        show(console, f"{overlap.reason}: {overlap.prompt}")
        if overlap.prompt != overlap.test_prompt:
            show(console, f"  test file: {overlap.test_prompt}")
    show(
        console, f"{len(overlaps)} of {len(train_prompts)} training prompts are among {len(test_prompts)} test prompts"
    )
    if overlaps:
        raise typer.Exit(1)


def read_shares(values: Sequence[str]) -> dict[str, float]:
    """`tag=proportion` texts as numbers.

    Raises:
        ConfigError: no `=`, not a number, or a tag twice.
    """
    from blip3o_grpo.configs import ConfigError

    shares: dict[str, float] = {}
    for value in values:
        tag, _, number = (part.strip() for part in value.partition("="))
        try:
            share = float(number)
        except ValueError:
            raise ConfigError(f"--tag-share {value!r}: write tag=number, e.g. counting=0.2") from None
        if tag in shares:
            raise ConfigError(f"--tag-share: {tag} is given twice")
        shares[tag] = share
    return shares


def _held_out(files: Sequence[Path] | None) -> HeldOut | None:
    if not files:
        return None
    from blip3o_grpo.prompt_data.overlap import HeldOut
    from blip3o_grpo.rollout.prompts import load_prompts

    return HeldOut([prompt for file in files for prompt in load_prompts(file)])


def _write(out: Path, records: Sequence[dict[str, Any]]) -> None:
    from blip3o_grpo.configs import ConfigError
    from blip3o_grpo.configs.atomic import write_atomically

    if out.suffix != ".jsonl":
        raise ConfigError(f"{out}: prompt files with metadata end in .jsonl")

    write_atomically(out, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
