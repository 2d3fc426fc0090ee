"""Reads what a run wrote, checked as it is read: a damaged file is one sentence that names it, its line and its key."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, NonNegativeFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs.regular_files import NotRegularError, open_regular, read_text
from blip3o_grpo.configs.typed_json import parse_typed
from blip3o_grpo.rollout.records import PictureName

Count = Annotated[int, Field(ge=0, lt=2**53)]
"""Of steps, prompts, images; larger ones are no exact numbers in other programs' JSON."""


class RunFileError(ValueError):
    """A file of a run folder that is not what a run writes."""


class EvaluationPictures(TypedDict):
    """A line of `evaluations/NAME-images/index.jsonl`."""

    prompt_id: str
    prompt: str
    images: list[PictureName]
    rewards: dict[str, list[float | None]]


def _complete(line: EvaluationPictures) -> EvaluationPictures:
    for reward, scores in line["rewards"].items():
        if len(scores) != len(line["images"]):
            raise ValueError(f"'rewards.{reward}' has {len(scores)} scores for {len(line['images'])} images")
    return line


class Summary(TypedDict):
    """`summary.json`."""

    steps: Count
    seconds: NonNegativeFloat
    peak_memory_gb: NonNegativeFloat
    mismatch_max: NotRequired[float | None]
    versions: NotRequired[dict[str, str]]


class StepMetrics(TypedDict, extra_items=float | None):
    """A line of `metrics.jsonl`."""

    step: Count


EVALUATION_PICTURES = TypeAdapter(Annotated[EvaluationPictures, AfterValidator(_complete)])
SUMMARY = TypeAdapter(Summary)
METRICS = TypeAdapter(StepMetrics)


def read_object(path: Path, schema: TypeAdapter) -> dict[str, Any]:
    """A JSON file of one object, with the keys of `schema` and any others.

    Raises:
        RunFileError: cannot be read, is no JSON, or lacks what `schema` asks for.
    """
    return parse_object(_text(path), schema, str(path))


def read_objects(path: Path, schema: TypeAdapter) -> list[dict[str, Any]]:
    """The objects of a JSONL file; blank lines are skipped.

    Raises:
        RunFileError: as `read_object`, naming the line.
    """
    lines = enumerate(_text(path).split("\n"), start=1)
    return [parse_object(line, schema, f"{path}:{number}") for number, line in lines if line.strip()]


def read_reward_state(path: Path) -> dict[str, Any]:
    """What rewards remember of the starting policy: tensors and plain values, nothing that could run.

    Raises:
        RunFileError: missing, damaged, or with other objects in it.
    """
    import torch

    try:
        with open_regular(path) as file:
            state = torch.load(file, weights_only=True)
    except NotRegularError as error:
        raise RunFileError(str(error)) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunFileError(f"{path}: not the saved state of rewards ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise RunFileError(f"{path}: not the saved state of rewards (a {type(state).__name__})")
    return state


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path}: not UTF-8 (byte {error.start}), so no run wrote it") from error


def parse_object(text: str, schema: TypeAdapter, place: str) -> dict[str, Any]:
    """One JSON object; `place` names it in messages. Raises RunFileError."""
    try:
        return parse_typed(text, schema)
    except ValueError as error:
        raise RunFileError(f"{place}: {error}") from None
