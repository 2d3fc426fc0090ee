"""DPG-Bench's official judge, mPLUG-large through modelscope. It loads when it is first asked."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from PIL import Image

CHECKPOINT = "damo/mplug_visual-question-answering_coco_large_en"
ADDED = " Answer with exactly yes or no."
"""What blip3o_grpo adds to a question; this model was trained on bare ones."""


@cache
def load() -> Any:
    """The pipeline; downloads the checkpoint from modelscope's hub on the first call."""
    pipeline = importlib.import_module("modelscope.pipelines").pipeline
    tasks = importlib.import_module("modelscope.utils.constant").Tasks
    return pipeline(tasks.visual_question_answering, model=CHECKPOINT)


def answer(image: Image.Image, question: str) -> str:
    """`yes` or `no`. DPG-Bench counts every other word of this model as no, so they become one here."""
    said = load()({"image": image, "question": question.removesuffix(ADDED)})["text"]
    return "yes" if said == "yes" else "no"
