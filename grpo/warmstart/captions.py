"""Pictures with captions for a warm start: which there are, and everything that can be wrong before a model loads."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.configs.regular_files import open_regular, other_kind, read_text
from blip3o_grpo.configs.shipped import missing_hint
from blip3o_grpo.policies.blip3o_next.prompt_encoder import unusable_character
from blip3o_grpo.rewards.images import check_header


class WarmstartDataError(ValueError):
    """Images or captions that cannot be used: names file and line."""


@dataclass(frozen=True)
class CaptionedPicture:
    """A line of the captions file."""

    path: Path
    """Of the picture, which is there."""
    caption: str
    place: str
    """File and line, for messages."""


def read_captions(config: WarmstartConfig) -> list[CaptionedPicture]:
    """Pictures and captions in the order of the file, checked without reading a picture.

    Raises:
        WarmstartDataError: no folder of images, an unreadable or empty captions file, a line without the keys, a name
            that leads out of the folder, is there twice or names no file.
    """
    file, folder = Path(config.captions), Path(config.images)
    lines = _lines(file)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else f"does not exist; {missing_hint(folder)}"
        raise WarmstartDataError(f"images: {folder} {what}")
    pictures, places = [], {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{file}:{number}"
            name, text = _parse(line, place)
            path = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise WarmstartDataError(f"{place}: {name!r} leads out of the folder of images, {folder}")
            if path in places:
                raise WarmstartDataError(f"{place}: {name!r} has a caption already, in line {places[path]}")
            places[path] = number
            pictures.append(CaptionedPicture(path, text, place))
    if not pictures:
        raise WarmstartDataError(f"captions: {file} is empty")
    for picture in pictures:
        if not os.path.isfile(picture.path):  # unlike Path.is_file, never an error: a name may be anything
            if not any(folder.iterdir()):
                raise WarmstartDataError(f"images: {folder} is empty")
            kind = other_kind(picture.path)
            what = f"is {kind}" if kind else "does not exist"
            raise WarmstartDataError(f"{picture.place}: names {picture.path}, which {what}")
    return pictures


def digest_pictures(pictures: list[CaptionedPicture]) -> str:
    """SHA-256 over the bytes of all pictures in their order, once every header was found to be a picture's.

    Raises:
        ImageFileError: a file that is no picture, or too large a one.
        WarmstartDataError: a file that cannot be read.
    """
    digest = hashlib.sha256()
    for picture in pictures:
        try:
            with open_regular(picture.path) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise WarmstartDataError(f"{picture.place}: {picture.path} cannot be read ({error.strerror})") from error
        check_header(picture.path)
    return digest.hexdigest()


def _lines(file: Path) -> list[str]:
    try:
        return read_text(file, "utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise WarmstartDataError(f"captions: {file} does not exist; {missing_hint(file)}") from error
    except OSError as error:
        raise WarmstartDataError(f"captions: {file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise WarmstartDataError(f"captions: {file} is not UTF-8 (byte {error.start})") from error


def _parse(line: str, place: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
        name, text = record["file_name"], record["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WarmstartDataError(
            f"{place}: each line must be a JSON object with `file_name` and `text` ({error!r:.200})"
        ) from error
    for key, value in (("file_name", name), ("text", text)):
        if not isinstance(value, str) or not value.strip() or unusable_character(value):
            raise WarmstartDataError(f"{place}: `{key}` is {value!r:.100}; it must be printable text")
    return name, text
