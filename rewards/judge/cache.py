"""Answers of judges on disk: one small JSON file each, named by judge, question and image.

Any number of processes may share a folder: files appear whole. A damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from blip3o_grpo.configs.atomic import require_writable, storage_errors
from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.rewards.types import RewardError


def image_hash(image: np.ndarray) -> str:
    """Of an image's size and pixels `[H, W, 3]` uint8."""
    found = hashlib.sha256(repr(image.shape).encode())
    found.update(np.ascontiguousarray(image).tobytes())
    return found.hexdigest()


def answer_key(judge: Mapping[str, Any], question: str, image: str) -> str:
    """Name of an answer.

    Args:
        judge: name, version, and whatever else of the request may change an answer.
        question: the whole text.
        image: its hash.
    """
    text = json.dumps({"judge": judge, "question": question, "image": image}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AnswerCache:
    """A folder of answers; None: nothing is kept and nothing found.

    Raises:
        RewardError: a file is there, or nothing may be written there.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise RewardError(f"judge: cache is {folder!r}, which is a file; name a folder")
            require_writable(self.folder)
        except RewardError:
            raise
        except (OSError, ValueError) as error:  # StorageError is one
            raise RewardError(f"judge: cache is {folder!r}: {error}") from error

    def get(self, key: str) -> str | None:
        """The judge's words; None: not there, or damaged."""
        if self.folder is None:
            return None
        try:
            values = json.loads(read_text(self._file(key)))
        except (OSError, ValueError, RecursionError):
            return None
        text = values.get("answer") if isinstance(values, dict) else None
        return text if isinstance(text, str) else None

    def put(self, key: str, answer: str, about: Mapping[str, Any]) -> None:
        """Keep an answer, with what somebody who reads the folder wants to know.

        Raises:
            StorageError: the file system refused.
        """
        if self.folder is None:
            return
        file = self._file(key)
        text = json.dumps({"answer": answer, **about}, ensure_ascii=True, indent=1) + "\n"
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, staged = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                    out.write(text)
                os.replace(staged, file)
            except BaseException:
                Path(staged).unlink(missing_ok=True)
                raise

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"
