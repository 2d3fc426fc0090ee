"""Reads recorded rollouts back, checked: nothing in a record may point out of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import NonNegativeInt, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs.mistakes import first_mistake
from blip3o_grpo.rollout.types import RolloutError

PictureName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+\.png$")]
"""A file beside the one that names it."""


class Chosen(TypedDict):
    """The best or worst member of a group."""

    member: NonNegativeInt
    image: PictureName


class Scored(TypedDict):
    """One rollout."""

    rewards: dict[str, float | None]


class Record(TypedDict):
    """A line of `rollouts.jsonl`: what readers of it rely on."""

    step: int | str
    prompt_id: str
    prompt: str
    metadata: dict[str, Any]
    rollouts: list[Scored]
    best: Chosen
    worst: Chosen
    images: NotRequired[list[PictureName]]


_RECORD = TypeAdapter(Record)


def read_step(file: Path) -> list[dict[str, Any]]:
    """The groups of one `rollouts.jsonl`; image files by their names, which lie beside it.

    Raises:
        RolloutError: naming file, line and key.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RolloutError(f"{file}: cannot be read ({error})") from error
    return [_record(line, f"{file}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        _RECORD.validate_python(record)
    except ValidationError as error:
        raise RolloutError(f"{place}: {first_mistake(error)}") from error
    except (ValueError, RecursionError) as error:
        raise RolloutError(f"{place}: not valid JSON ({error})") from error
    for kind in ("best", "worst"):
        if record[kind]["member"] >= len(record["rollouts"]):
            raise RolloutError(f"{place}: {kind}.member is {record[kind]['member']}, of {len(record['rollouts'])}")
    return record


def read_rollouts(run_dir: str | Path) -> list[dict[str, Any]]:
    """All recorded groups of a run, in order of their steps; image files as full paths.

    `images` has one for each rollout if all were kept; `best` and `worst` always name theirs.

    Raises:
        RolloutError: a record that no run wrote; names file, line and key.
    """
    records = []
    for file in sorted(Path(run_dir).glob("rollouts/step-*/rollouts.jsonl")):
        for record in read_step(file):
            for kind in ("best", "worst"):
                record[kind]["image"] = str(file.parent / record[kind]["image"])
            if "images" in record:
                record["images"] = [str(file.parent / image) for image in record["images"]]
            records.append(record)
    return records
