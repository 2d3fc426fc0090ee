"""What makes a checkpoint complete: `manifest.json`, written last, with the size and SHA-256 of every other file.

A folder whose files differ from its manifest, or that has none, is never resumed from. Checkpoints of versions that
wrote no manifest cannot be told from torn ones; `python -m blip3o_grpo.run.manifest FOLDER` accepts one as it is. Files
that the manifest does not name are not looked at. This finds damage, not malice: the manifest is not signed.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from blip3o_grpo.configs.atomic import sync, write_atomically

FILE = "manifest.json"
THREADS = 4
"""Files hashed at a time; hashing releases Python's lock."""


class FileRecord(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    """Bytes."""
    sha256: str


class Manifest(BaseModel):
    """Contents of a complete checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    """Optimiser steps done."""
    score: float | None = None
    """How good the policy is, for `checkpoint.keep_best` (see `blip3o_grpo.run.retention`); None: not known."""
    files: dict[str, FileRecord]
    """By path below the folder."""


def write_manifest(folder: Path, step: int, score: float | None = None) -> Manifest:
    """Flush every file of a finished checkpoint to the disk, hash it, and write the manifest, which completes it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    with ThreadPoolExecutor(THREADS) as pool:
        records = list(pool.map(_flush_and_record, files))
    named = {file.relative_to(folder).as_posix(): record for file, record in zip(files, records, strict=True)}
    manifest = Manifest(step=step, score=score, files=named)
    for inner in {file.parent for file in files}:
        sync(inner)
    _write(folder, manifest)
    return manifest


def set_score(folder: Path, score: float | None) -> None:
    """Give a complete checkpoint a score that was measured after it was written."""
    _write(folder, read_manifest(folder).model_copy(update={"score": score}))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, or None if there is none that can be read."""
    if not (folder / FILE).is_file():  # reading a named pipe would never end
        return None
    try:
        return Manifest.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def fault(folder: Path, step: int, *, full: bool) -> str | None:
    """Why a folder is not the complete checkpoint of this step, or None if it is.

    Args:
        folder: `checkpoint-N`.
        step: N.
        full: also hash every file; else only sizes are compared, which costs next to nothing.

    Raises:
        OSError: a file is there and cannot be read; that says nothing about the checkpoint.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / FILE).is_file():
            return f"its {FILE} is damaged"
        return (
            f"it has no {FILE}: incomplete, or of a version that wrote none (see `grpo/run/manifest.py` to accept it)"
        )
    if manifest.step != step:
        return f"it holds step {manifest.step}"
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != record.size:
            return f"{name} has {size} bytes instead of {record.size}"
    if full:
        with ThreadPoolExecutor(THREADS) as pool:
            digests = pool.map(_sha256, [folder / name for name in manifest.files])
            for (name, record), digest in zip(manifest.files.items(), digests, strict=True):
                if digest != record.sha256:
                    return f"{name} is not what was written (its SHA-256 differs)"
    return None


def _write(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / FILE, manifest.model_dump_json(indent=1) + "\n")


def _flush_and_record(file: Path) -> FileRecord:
    sync(file)
    return FileRecord(size=file.stat().st_size, sha256=_sha256(file))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def accept(folder: Path) -> Path:
    """Give a checkpoint of an older version its manifest, as it is; a refused one gets its name back."""
    name = folder.name.removeprefix("refused-")
    write_manifest(folder, int(name.removeprefix("checkpoint-")))
    return folder.rename(folder.with_name(name))


if __name__ == "__main__":
    accept(Path(sys.argv[1]))
