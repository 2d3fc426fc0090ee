"""DPG-Bench's official judge, mPLUG-large, by modelscope's model class. It loads when it is first asked.

modelscope's pipeline for it is left out: it imports fairseq, which fails on Python 3.11. What the pipeline does to
image and question is done here. The checkpoint holds a pickle, and YAML that can run code: load none but the authors'
own.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CHECKPOINT = "damo/mplug_visual-question-answering_coco_large_en"
FOLDER = "MPLUG"
"""Environment variable with a folder of the checkpoint, where it need not be downloaded."""
ADDED = " Answer with exactly yes or no."
"""What blip3o_grpo adds to a question; this model was trained on bare ones."""
MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of red, green and blue."""
MAX_TOKENS = 25


@cache
def load() -> Any:
    """The model; downloads the checkpoint from modelscope's hub unless MPLUG names its folder."""
    folder = os.environ.get(FOLDER) or importlib.import_module("modelscope").snapshot_download(CHECKPOINT)
    if not (Path(folder) / "pytorch_model.bin").is_file():
        raise FileNotFoundError(f"{folder}: no pytorch_model.bin, so this is no checkpoint of mPLUG")
    module = importlib.import_module("modelscope.models.multi_modal.mplug_for_all_tasks")
    return module.MPlugForAllTasks(str(folder)).eval()


def pixels(image: Image.Image, side: int) -> torch.Tensor:
    """What the model sees, `[1, 3, side, side]`."""
    values = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    mean, spread = (np.array(each, np.float32) for each in (MEAN, SPREAD))
    return torch.from_numpy((values - mean) / spread).permute(2, 0, 1)[None]


def ask(model: Any, image: Image.Image, question: str) -> str:
    """The model's own words."""
    words = model.tokenizer(
        question.lower(), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    with torch.no_grad():
        return model({"image": pixels(image, model.model.config.image_res), "question": words})["text"]


def answer(image: Image.Image, question: str) -> str:
    """`yes` or `no`. DPG-Bench counts every other word of this model as no, so they become one here."""
    return "yes" if ask(load(), image, question.removesuffix(ADDED)) == "yes" else "no"
