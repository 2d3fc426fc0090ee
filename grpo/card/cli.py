"""`blip3o-grpo card`: the command, without the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from blip3o_grpo.errors import one_line_errors
from blip3o_grpo.terminal import in_words, plain, show

console = Console()

COLOURS = {"better": "green", "not worse": "", "worse": "red", "cannot tell": "dim"}
SHOWN = {"same": "dim", "within its interval": "", "differs": "red"}


@one_line_errors
def card(
    run: Annotated[str | None, typer.Argument(help="Folder of a finished run.")] = None,
    suites: Annotated[
        str | None, typer.Option(help="Such as ocr,geneval; default: all that fit the run's prompts; '': none.")
    ] = None,
    margin: Annotated[
        list[str] | None, typer.Option(help="Smallest fall that matters: VALUE, or MEASURE=VALUE; repeatable.")
    ] = None,
    verify: Annotated[Path | None, typer.Option(help="A card (card.html or card.json) to measure again.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; default: card.html in the run folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.key=value.")] = None,
) -> None:
    """Has training made anything worse? Start against trained on all that can be measured; exit code 1 if it has."""
    from blip3o_grpo import api
    from blip3o_grpo.configs import ConfigError

    progress = Console(stderr=True) if as_json else console
    if verify is not None:
        if suites is not None or margin or out or overrides:
            raise ConfigError("--verify measures as the card says; leave --suites, --margin, --out and --set out")
        checks = api.verify_card(verify, run, console=progress)
        if as_json:
            typer.echo(json.dumps([{"name": check.name, "status": check.status} for check in checks]))
        else:
            table = Table(Column("row", overflow="fold"), "the card's change", "change now", "verdicts", "")
            for check in checks:
                sides = (check.said, check.found)
                changes = [in_words(side.change, "+.3f") if side else "–" for side in sides]
                verdicts = " / ".join(dict.fromkeys(side.verdict if side else "none" for side in sides))
                table.add_row(plain(check.name), *changes, verdicts, Text(check.status, SHOWN[check.status]))
            console.print(table)
        raise typer.Exit(1 if any(check.status == "differs" for check in checks) else 0)
    if run is None:
        raise ConfigError("give the folder of a finished run, or --verify CARD")
    names = None if suites is None else [name.strip() for name in suites.split(",") if name.strip()]
    found = api.make_card(run, suites=names, margins=margin or (), overrides=overrides or (), out=out, console=progress)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        title = "start against trained, the same prompts, seeds and noise"
        table = Table(Column("row", overflow="fold"), "start", "trained", "change", "margin", "verdict", title=title)
        for row in found.rows:
            shown = (in_words(row.before), in_words(row.after), in_words(row.change, "+.3f"), f"{row.margin:g}")
            table.add_row(plain(row.name), *shown, Text(row.verdict, COLOURS[row.verdict]))
        table.caption = "In brackets: 95 % interval over n prompts, texts or questions; of the change, paired by them."
        console.print(table)
        for sentence in found.left_out:
            show(console, f"not measured: {sentence}")
        show(console, f"model card: {Path(found.run) / 'policy' / 'README.md'}")
        show(console, f"card: {out or Path(found.run) / 'card.html'}")
    raise typer.Exit(1 if found.worse else 0)
