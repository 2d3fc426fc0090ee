"""PaddleOCR's PP-OCRv6 small models, offline, from the ONNX files inside the `rapidocr` wheel (Apache-2.0).

PaddleOCR wants a folder per model with `inference.onnx` and `inference.yml`; rapidocr ships the same networks as bare
ONNX files. `python -m blip3o_grpo.rewards.ocr.models` lays the folders out (the OCR reward does so itself when they are
missing).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import yaml

from blip3o_grpo.rewards.ocr.alphabet import onnx_alphabet, read_settings
from blip3o_grpo.rewards.types import RewardError

DETECTION = "PP-OCRv6_small_det"
RECOGNITION = "PP-OCRv6_small_rec"
RECOGNITION_WIDTH = 160
"""Least width (px, at a height of 48) that a line is padded to. PaddleOCR's own 320 reads short words no better and
costs 1.5 times as much; longer lines keep their width."""
_ONNX_FILES = {DETECTION: "PP-OCRv6_det_small.onnx", RECOGNITION: "PP-OCRv6_rec_small.onnx"}


def default_folder() -> Path:
    """Where the model folders live: `blip3o-grpo/` of the user's cache, one folder per rapidocr version and width."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "blip3o-grpo" / f"ppocr-rapidocr-{_rapidocr_version()}-w{RECOGNITION_WIDTH}"


@cache
def _rapidocr_version() -> str:
    return version("rapidocr")


def ensure_models(folder: Path | None = None) -> Path:
    """Lay the model folders out if they are missing; safe to call from several processes at once.

    Args:
        folder: holds one folder per model afterwards (default: `default_folder()`).

    Returns:
        The folder.

    Raises:
        RewardError: rapidocr's wheel does not contain the ONNX files.
    """
    folder = folder or default_folder()
    for name in _ONNX_FILES:
        if not (folder / name / "inference.yml").is_file():
            _lay_out(name, folder)
    return folder


def recognizer_folder(recognizer: str, models: Path) -> Path:
    """Where a recogniser's `inference.onnx` and `inference.yml` are; nothing is laid out.

    Args:
        recognizer: `PP-OCRv6_small_rec`, another folder's name in `models`, or a path.
        models: holds one folder per model.

    Raises:
        RewardError: there is no such folder, or a file is missing in it.
    """
    if recognizer == RECOGNITION:
        return models / RECOGNITION
    folder = next((folder for folder in (models / recognizer, Path(recognizer)) if folder.is_dir()), None)
    if not recognizer or folder is None:
        raise RewardError(
            f"OCR recognizer {recognizer!r} is no folder, here or in {models}; only {RECOGNITION} comes with rapidocr, "
            "any other PaddleOCR model is given by the folder with its inference.onnx and inference.yml"
        )
    for name in ("inference.onnx", "inference.yml"):
        if not (folder / name).is_file():
            raise RewardError(f"OCR recognizer {recognizer!r}: {folder / name} is missing")
    return folder


def model_name(folder: Path) -> str:
    """PaddleOCR's own name of the model in a folder.

    Raises:
        RewardError: `inference.yml` does not tell it.
    """
    return str(read_settings(folder / "inference.yml", "Global", "model_name"))


def alphabet_file(recognizer: str, models: Path) -> Path:
    """The file that lists a recogniser's characters: its `inference.yml`, or rapidocr's own ONNX file before layout."""
    settings = recognizer_folder(recognizer, models) / "inference.yml"
    return settings if settings.is_file() else _source(RECOGNITION)


def _source(name: str) -> Path:
    source = Path(find_spec("rapidocr").origin).parent / "models" / _ONNX_FILES[name]
    if not source.is_file():
        raise RewardError(f"OCR model {source} is missing; reinstall rapidocr as pinned in requirements/cpu.txt")
    return source


def _lay_out(name: str, folder: Path) -> None:
    source = _source(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        draft = Path(temporary) / name
        draft.mkdir()
        shutil.copyfile(source, draft / "inference.onnx")
        settings = _detection_settings() if name == DETECTION else _recognition_settings(source)
        text = yaml.safe_dump({"Global": {"model_name": name}, **settings}, allow_unicode=True, sort_keys=False)
        (draft / "inference.yml").write_text(text, encoding="utf-8")
        try:
            draft.rename(folder / name)
        except OSError:  # another process was faster; its result is the same
            if not (folder / name / "inference.yml").is_file():
                raise


def _detection_settings() -> dict:
    """Pre- and post-processing of the PP-OCRv6 detector, in PaddleX's own format."""
    operators = [
        {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
        {"DetLabelEncode": None},
        {"DetResizeForTest": {"resize_long": 960}},
        {
            "NormalizeImage": {
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "scale": "1./255.",
                "order": "hwc",
            }
        },
        {"ToCHWImage": None},
        {"KeepKeys": {"keep_keys": ["image", "shape", "polys", "ignore_tags"]}},
    ]
    return {
        "PreProcess": {"transform_ops": operators},
        "PostProcess": {
            "name": "DBPostProcess",
            "thresh": 0.3,
            "box_thresh": 0.6,
            "max_candidates": 1000,
            "unclip_ratio": 1.5,
        },
    }


def _recognition_settings(onnx_file: Path) -> dict:
    """Pre- and post-processing of the recogniser; its alphabet is stored in the ONNX file itself."""
    operators = [
        {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
        {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}},
        {"RecResizeImg": {"image_shape": [3, 48, RECOGNITION_WIDTH]}},
        {"KeepKeys": {"keep_keys": ["image", "label_ctc", "label_gtc", "length", "valid_ratio"]}},
    ]
    return {
        "PreProcess": {"transform_ops": operators},
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": onnx_alphabet(onnx_file)},
    }


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_models()}\n")
