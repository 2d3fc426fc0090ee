"""Reads recorded rollouts back, checked: nothing in a record may point out of its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, NonNegativeInt, StringConstraints, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.configs.typed_json import parse_typed
from blip3o_grpo.rollout.types import RolloutError

PictureName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+\.png$")]
"""A file beside the one that names it."""

STEP_FOLDER = re.compile(r"step-\w+", re.ASCII)
"""Name of a recorded step's folder; a copy such as `step-000000.bak` is none."""


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


def _complete(record: Record) -> Record:
    members = len(record["rollouts"])
    for kind in ("best", "worst"):
        if record[kind]["member"] >= members:
            raise ValueError(f"'{kind}.member' is {record[kind]['member']}, of {members} rollouts")
    if "images" in record and len(record["images"]) != members:
        raise ValueError(f"'images' names {len(record['images'])} for {members} rollouts")
    return record


_RECORD = TypeAdapter(Annotated[Record, AfterValidator(_complete)])


def read_step(file: Path) -> list[dict[str, Any]]:
    """The groups of one `rollouts.jsonl`; image files by their names, which lie beside it.

    Raises:
        RolloutError: naming file, line and key.
    """
    try:
        lines = read_text(file).split("\n")
    except OSError as error:
        raise RolloutError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RolloutError(f"{file}: cannot be read ({error})") from error
    return [_record(line, f"{file}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        return parse_typed(line, _RECORD)
    except ValueError as error:
        raise RolloutError(f"{place}: {error}") from None


def read_rollouts(run_dir: str | Path) -> list[dict[str, Any]]:
    """All recorded groups of a run, in order of their steps; image files as full paths.

    `images` has one for each rollout if all were kept; `best` and `worst` always name theirs.

    Raises:
        RolloutError: a record that no run wrote; names file, line and key.
    """
    records = []
    for file in sorted(Path(run_dir).glob("rollouts/step-*/rollouts.jsonl")):
        if not STEP_FOLDER.fullmatch(file.parent.name):
            continue
        for record in read_step(file):
            for kind in ("best", "worst"):
                record[kind]["image"] = str(file.parent / record[kind]["image"])
            if "images" in record:
                record["images"] = [str(file.parent / image) for image in record["images"]]
            records.append(record)
    return records
