"""DPG-Bench's official result files: scores, answers, and the images of a prompt as one 2 x 2 picture.

NAME.txt            path, score of each image, their mean; at the end the total
NAME_detail.txt     path, crop, question, answer
NAME/ITEM_ID.png    four images, left to right and top to bottom
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, RecordedAnswers
from blip3o_grpo.rewards.dpg.questions import questions_of
from blip3o_grpo.rewards.dpg.scoring import image_score
from blip3o_grpo.rewards.result_files import check_complete, check_new, image_folder, read_lines, save_image
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

MOST_IMAGES = 4
_DETAIL = re.compile(
    r"(?P<picture>.*?), \((?P<crop>[0-9]{1,9}(, [0-9]{1,9}){3})\), (?P<question>.*), (?P<answer>[^,]*)"
)
_NO_LETTER = re.compile(r"[\W_]+")


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


def read_results(
    path: Path, prompts: Sequence[BenchmarkPrompt], others: Sequence[BenchmarkPrompt] = ()
) -> RecordedAnswers:
    """Scores of recorded answers, from a `NAME_detail.txt` of any judge: `yes` is 1 and other words 0, officially.

    Args:
        path: of the file.
        prompts: that are measured.
        others: not looked at: the official script writes down items, too, that it then leaves out.

    Raises:
        ConfigError: naming the line or the prompt that is wrong. `Yes!` and no word at all are no answers: the official
            script takes them for no.
    """
    num_other_words = 0
    answers: dict[str, dict[tuple[int, ...], dict[int, float]]] = {prompt.id: {} for prompt in prompts}
    wanted = {prompt.id: questions_of(prompt.metadata) for prompt in prompts}
    for place, line in read_lines(path):
        found = _DETAIL.fullmatch(line)
        if not found:
            raise ConfigError(f"{place}: expected `picture, (left, top, right, bottom), question, answer`")
        item = Path(found["picture"]).name.partition(".")[0]
        if item not in wanted:  # of a prompt that is not measured
            continue
        left, top, *_ = crop = tuple(int(number) for number in found["crop"].split(", "))
        given = answers[item].setdefault((top, left, *crop), {})
        same = [question.id for question in wanted[item] if question.text == found["question"]]
        free = [number for number in same if number not in given]
        if not free:
            what = "is answered twice" if same else "is none of this item's"
            raise ConfigError(f"{place}: item {item!r}: the question {found['question']!r} {what}")
        word = _word(found["answer"], place)
        num_other_words += word not in ("yes", "no")
        given[free[0]] = float(word == "yes")
    for item, images in answers.items():
        if len(images) > MOST_IMAGES:
            raise ConfigError(
                f"{path}: item {item!r}: answers about {len(images)} images; it has {MOST_IMAGES} at most"
            )
        for given in images.values():
            missing = [question.text for question in wanted[item] if question.id not in given]
            if missing:
                raise ConfigError(f"{path}: item {item!r}: no answer to {missing[0]!r} for one of its images")
    check_complete(path, prompts, {item: len(images) for item, images in answers.items()})
    scored = [_scored(prompt, [given for _, given in sorted(answers[prompt.id].items())]) for prompt in prompts]
    total = sum(len(given) for images in answers.values() for given in images.values())
    note = f"Of {total} recorded answers {num_other_words} are neither yes nor no: counted as no, officially."
    return RecordedAnswers(scored, (note,) if num_other_words else ())


def _word(answer: str, place: str) -> str:
    word = answer.strip()
    if not word:
        raise ConfigError(f"{place}: the answer is missing; it must be yes or no")
    bare = _NO_LETTER.sub("", word).lower()
    if word != bare and bare in ("yes", "no"):
        raise ConfigError(f"{place}: the answer is {word!r}; an official answer is exactly {bare!r}")
    return word


def _scored(prompt: BenchmarkPrompt, images: Sequence[Mapping[int, float]]) -> ScoredPrompt:
    questions = questions_of(prompt.metadata)
    explanations = [
        {"answers": {str(q.id): given[q.id] for q in questions}, "usage": {"answers": len(given)}} for given in images
    ]
    scores = [image_score({q.id: given[q.id] for q in questions}, questions) for given in images]
    return ScoredPrompt(prompt.text, prompt.metadata, [], scores, explanations, prompt.id)


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
