"""A card: what was found, as it is saved, read again and compared. `make.py` finds it, `page.py` shows it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from blip3o_grpo.card.plan import Request
from blip3o_grpo.card.verdicts import Row, judge
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.run.files import read_object

FILE = "card.html"
"""In the run folder; the JSON lies beside it."""
CHUNK = 2**20


@dataclass(frozen=True)
class Card:
    """What training changed, measure by measure."""

    run: str
    """Path of the run folder."""
    start: str
    """Name of the starting policy, as the run's configuration has it."""
    steps: int
    """Optimiser steps behind the trained policy."""
    heldout: str
    """File of the prompts."""
    images_per_prompt: int
    rows: list[Row]
    left_out: list[str]
    """What was not measured, and why."""
    request: Request
    policies: dict[str, str]
    """`start` and `trained` to the SHA-256 of their weights."""
    versions: dict[str, str]

    @property
    def worse(self) -> list[Row]:
        """Rows in which something was lost."""
        return [row for row in self.rows if row.verdict == "worse"]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def _consistent(card: Card) -> Card:
    names = [row.name for row in card.rows]
    if len(set(names)) < len(names):
        raise ValueError("'rows' holds a row twice")
    for row in card.rows:
        if row.verdict != judge(row.change, row.margin, row.weight, row.lower_is_better):
            raise ValueError(f"row {row.name!r}: {row.verdict!r} does not follow from its interval and margin")
    return card


CARD = TypeAdapter(Annotated[Card, AfterValidator(_consistent)])


def load_card(path: Path) -> Card:
    """Read what `page.write_card` wrote, by the name of the page or of its JSON.

    Raises:
        ConfigError: there is no such file.
        RunFileError: it is no card.
    """
    file = path.with_suffix(".json")
    if not file.is_file():
        raise ConfigError(f"{path}: no card; give the card.html or card.json that `blip3o-grpo card RUN` wrote")
    values = read_object(file, CARD)
    return CARD.validate_python({key: value for key, value in values.items() if key != "kind"})


def weights_digest(policy: Path) -> str:
    """SHA-256 over the weights of a policy: names and bytes of all its safetensors files, in the order of names."""
    digest = hashlib.sha256()
    for file in sorted(policy.rglob("*.safetensors")):
        digest.update(file.relative_to(policy).as_posix().encode() + b"\0")
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
