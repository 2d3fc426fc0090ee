"""`blip3o-grpo prompts`: make training prompts, and check that none of them is in a test file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.rollout.types import Prompt
from blip3o_grpo.terminal import show

if TYPE_CHECKING:
    from blip3o_grpo.prompt_data.overlap import HeldOut

app = typer.Typer(help="Make training prompts, and check them against test prompts.", no_args_is_help=True)
console = Console()

NUM_HELDOUT = 128

Out = Annotated[Path, typer.Option(help="File to write (.jsonl).")]
Count = Annotated[int, typer.Option(min=1, help="Number of prompts.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same file.")]
ExcludeFiles = Annotated[
    list[Path] | None, typer.Option("--exclude-file", help="Test prompts (.txt, .jsonl) to keep out; repeatable.")
]
HeldoutOut = Annotated[
    Path | None, typer.Option(help="Also write held-out prompts (.jsonl); none of them is in --out.")
]
HeldoutCount = Annotated[int | None, typer.Option(min=1, help=f"Number of held-out prompts; default: {NUM_HELDOUT}.")]


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
    heldout_out: HeldoutOut = None,
    heldout_count: HeldoutCount = None,
) -> None:
    """GenEval training prompts with their records, from the benchmark's templates."""
    from blip3o_grpo.prompt_data import geneval_prompts

    num_heldout = _check_files(out, heldout_out, heldout_count)
    shares = read_shares(tag_share) if tag_share else None
    excluded = _excluded(exclude_file)
    heldout = geneval_prompts.generate(num_heldout, seed, shares, _held_out(excluded)) if num_heldout else []
    excluded += [Prompt(id="", text=record["prompt"], metadata=record) for record in heldout]
    records = geneval_prompts.generate(count, seed, shares, _held_out(excluded))
    _write({out: records, heldout_out: heldout})
    for file, written in ((out, records), (heldout_out, heldout)):
        if written:
            tags = Counter(record["tag"] for record in written)
            show(
                console,
                f"{len(written)} prompts ({', '.join(f'{tag} {n}' for tag, n in sorted(tags.items()))}): {file}",
            )


@app.command()
@one_line_errors
def text(
    out: Out,
    count: Count,
    seed: Seed = 0,
    exclude_file: ExcludeFiles = None,
    heldout_out: HeldoutOut = None,
    heldout_count: HeldoutCount = None,
) -> None:
    """Text-rendering training prompts: a scene, something that carries text, and one to six quoted words.

    What held-out prompts quote is quoted by no training prompt.
    """
    from blip3o_grpo.prompt_data import text_prompts

    num_heldout = _check_files(out, heldout_out, heldout_count)
    excluded = _held_out(_excluded(exclude_file))
    heldout = text_prompts.generate(num_heldout, seed, excluded, heldout=True) if num_heldout else []
    records = text_prompts.generate(count, seed, excluded, heldout=False if num_heldout else None)
    _write({out: records, heldout_out: heldout})
    for file, written in ((out, records), (heldout_out, heldout)):
        if written:
            show(console, f"{len(written)} prompts: {file}")


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


def _check_files(out: Path, heldout_out: Path | None, heldout_count: int | None) -> int:
    """How many held-out prompts are wanted, once the names of the files can be right."""
    from blip3o_grpo.configs import ConfigError, whole_path
    from blip3o_grpo.configs.regular_files import is_regular

    for file in (out, heldout_out):
        if file is not None and file.suffix != ".jsonl":
            raise ConfigError(f"{file}: prompt files with metadata end in .jsonl")
        if file is not None:
            is_regular(whole_path(file))
    if heldout_out is None:
        if heldout_count is not None:
            raise ConfigError("--heldout-count: say with --heldout-out where these prompts go")
        return 0
    if whole_path(heldout_out) == whole_path(out):
        raise ConfigError(f"--heldout-out: {heldout_out} is the file of the training prompts; name another")
    return heldout_count or NUM_HELDOUT


def _excluded(files: Sequence[Path] | None) -> list[Prompt]:
    from blip3o_grpo.rollout.prompts import load_prompts

    return [prompt for file in files or () for prompt in load_prompts(file)]


def _held_out(prompts: Sequence[Prompt]) -> HeldOut:
    from blip3o_grpo.prompt_data.overlap import HeldOut

    return HeldOut(prompts)


def _write(files: Mapping[Path | None, Sequence[dict[str, Any]]]) -> None:
    """Write all files that are named, unless one of them is there and holds something else."""
    from blip3o_grpo.configs import ConfigError
    from blip3o_grpo.configs.atomic import storage_errors, write_atomically
    from blip3o_grpo.configs.regular_files import is_regular, read_bytes

    texts = {
        file: "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        for file, records in files.items()
        if file is not None
    }
    for file, text in texts.items():
        with storage_errors(file):
            other = is_regular(file) and read_bytes(file) != text.encode()
        if other:
            raise ConfigError(f"{file}: is there and holds something else; remove it, or name another file")
    for file, text in texts.items():
        write_atomically(file, text)
