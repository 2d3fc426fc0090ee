"""DPG-Bench's official result files: scores, answers, and the images of a prompt as one 2 x 2 picture.

NAME.txt            path, score of each image, their mean; at the end the total
NAME_detail.txt     path, crop, question, answer
NAME/ITEM_ID.png    four images, left to right and top to bottom
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.dpg.questions import questions_of
from blip3o_grpo.rewards.result_files import check_new, image_folder, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

MOST_IMAGES = 4


def check_results_path(path: Path) -> None:
    """Refuse a path where anything is already; raises ConfigError."""
    check_new(path, ".txt", (detail_file(path), image_folder(path)))


def detail_file(path: Path) -> Path:
    """File of the answers."""
    return path.with_name(f"{path.stem}_detail.txt")


def write_results(path: Path, prompts: Sequence[ScoredPrompt]) -> None:
    """Write the results of prompts with explained scores, up to four images each."""
    lines, details, means = [], [], []
    for prompt in prompts:
        file = save_image(image_folder(path), prompt.id, grid(prompt.images))
        scores = [float(score) for score in prompt.scores if score is not None]
        means.append(sum(scores) / len(scores))
        lines.append(", ".join([str(file), *map(str, scores), str(means[-1])]))
        height, width = prompt.images[0].shape[:2]
        for member, explanation in enumerate(prompt.explanations):
            left, top = member % 2 * width, member // 2 * height
            crop = (left, top, left + width, top + height)
            for question in questions_of(prompt.metadata):
                answer = "yes" if explanation["answers"][str(question.id)] else "no"
                details.append(f"{file}, {crop}, {question.text}, {answer}")
    lines.append(f"DPG-Bench score: {sum(means) / len(means) * 100}")
    write_atomically(detail_file(path), "\n".join(details) + "\n")
    write_atomically(path, "\n".join(lines) + "\n")


def grid(images: Sequence[np.ndarray]) -> np.ndarray:
    """One image as it is, up to four in two rows of two; places without one are black."""
    if len(images) == 1:
        return images[0]
    height, width, channels = images[0].shape
    page = np.zeros((2 * height, 2 * width, channels), np.uint8)
    for member, image in enumerate(images):
        top, left = member // 2 * height, member % 2 * width
        page[top : top + height, left : left + width] = image
    return page
