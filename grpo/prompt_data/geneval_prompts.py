"""GenEval training prompts: the benchmark's six templates over the 80 COCO classes, with its own record format.

The templates, and with them the benchmark's plain rules of English ("three sandwichs"), are those of
djghosh13/geneval (arXiv 2310.11513), so that training and test prompts are worded alike. "skis" and "scissors" are not
counted and "person" has no colour, as in the benchmark's own file.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.prompt_data.overlap import HeldOut
from blip3o_grpo.rewards.geneval.records import COLOR_NAMES, RELATIONS

Record = dict[str, Any]

CLASSES = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis",
    "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
]  # fmt: skip
"""COCO's 80 classes in COCO's order, three renamed by GenEval (computer mouse, computer keyboard, tv remote)."""
NUMBERS = {2: "two", 3: "three", 4: "four"}

COLORED = [name for name in CLASSES if name != "person"]
COUNTED = [name for name in CLASSES if name not in ("skis", "scissors")]
PAIRS = list(permutations(CLASSES, 2))
CHOICES: Mapping[str, Sequence[Sequence[Any]]] = {
    "single_object": [CLASSES],
    "two_object": [PAIRS],
    "counting": [COUNTED, list(NUMBERS)],
    "colors": [COLORED, COLOR_NAMES],
    "position": [PAIRS, RELATIONS],
    "color_attr": [list(permutations(COLORED, 2)), list(permutations(COLOR_NAMES, 2))],
}
"""Tag to what its template leaves open; a tag has the product of these many distinct prompts."""
DEFAULT_SHARES = {"position": 7, "counting": 5, "color_attr": 3, "colors": 1, "two_object": 1}
"""Proportions of Flow-GRPO's training prompts (arXiv 2505.05470); `single_object` is out, the test file has all 80."""


def render(tag: str, include: Sequence[Mapping[str, Any]]) -> str:
    """The benchmark's prompt of a record, e.g. "a photo of a dog right of a teddy bear".

    The first clause of a `position` record is the target, so it is named last.
    """
    if tag == "counting":
        return f"a photo of {NUMBERS[include[0]['count']]} {_plural(include[0]['class'])}"
    names = [
        _with_article(f"{clause['color']} {clause['class']}" if "color" in clause else clause["class"])
        for clause in include
    ]
    if tag == "position":
        return f"a photo of {names[1]} {include[1]['position'][0]} {names[0]}"
    return f"a photo of {' and '.join(names)}"


def make_record(tag: str, choices: Sequence[Any]) -> Record:
    """One record in the benchmark's format: `tag`, `include`, `exclude` (counting only), `prompt`, in that order.

    Args:
        choices: one value for each entry of `CHOICES[tag]`.
    """
    record: Record = {"tag": tag}
    if tag == "single_object":
        record["include"] = [{"class": choices[0], "count": 1}]
    elif tag == "two_object":
        record["include"] = [{"class": name, "count": 1} for name in choices[0]]
    elif tag == "counting":
        name, count = choices
        record["include"] = [{"class": name, "count": count}]
        record["exclude"] = [{"class": name, "count": count + 1}]
    elif tag == "colors":
        record["include"] = [{"class": choices[0], "count": 1, "color": choices[1]}]
    elif tag == "position":
        (subject, target), relation = choices
        record["include"] = [{"class": target, "count": 1}, {"class": subject, "count": 1, "position": [relation, 0]}]
    else:
        record["include"] = [{"class": name, "count": 1, "color": color} for name, color in zip(*choices, strict=True)]
    record["prompt"] = render(tag, record["include"])
    return record


def generate(
    count: int, seed: int, shares: Mapping[str, float] | None = None, held_out: HeldOut | None = None
) -> list[Record]:
    """`count` records in random order; the same arguments give the same records.

    A tag's prompts are drawn without repetition. Where its share is more than all of them (counting has 234), they come
    again in a new order, with an `id` that keeps the lines apart.

    Args:
        shares: tag to its proportion, on any scale; tags left out get none. Default: `DEFAULT_SHARES`.
        held_out: prompts that must not be made, in the same words or with the same meaning.

    Raises:
        ConfigError: an unusable count or share, or nothing left of a tag.
    """
    held_out = held_out or HeldOut([])
    records = [
        record
        for tag, quota in split_count(count, DEFAULT_SHARES if shares is None else shares).items()
        for record in _draw(tag, quota, random.Random(f"{seed}/{tag}"), held_out)
    ]
    random.Random(f"{seed}/order").shuffle(records)
    return records


def split_count(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `count` prompts each tag gets: shares rounded down, the rest to the largest remainders.

    Raises:
        ConfigError: count below 1, an unknown tag, a share that is negative or not finite, or no share above 0.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")
    for tag, share in shares.items():
        if tag not in CHOICES:
            raise ConfigError(f"unknown GenEval tag {tag!r}; the tags are {', '.join(CHOICES)}")
        if not (math.isfinite(share) and share >= 0):
            raise ConfigError(f"the share of {tag} must be a number of at least 0, not {share}")
    total = sum(shares.values())
    if not total:
        raise ConfigError("no tag has a share above 0")
    exact = {tag: count * (shares.get(tag, 0) / total) for tag in CHOICES}
    quotas = {tag: math.floor(value) for tag, value in exact.items()}
    by_remainder = sorted(CHOICES, key=lambda tag: quotas[tag] - exact[tag])
    for tag in by_remainder[: count - sum(quotas.values())]:
        quotas[tag] += 1
    return quotas


def _draw(tag: str, quota: int, rng: random.Random, held_out: HeldOut) -> list[Record]:
    size = math.prod(len(values) for values in CHOICES[tag])
    drawn: list[Record] = []
    turn = 1
    while len(drawn) < quota:
        before = len(drawn)
        for number in rng.sample(range(size), size):
            record = make_record(tag, _choices(tag, number))
            if held_out.find(record["prompt"], record) is None:
                drawn.append(record if turn == 1 else {"id": f"{record['prompt']} ({turn})", **record})
            if len(drawn) == quota:
                break
        if len(drawn) == before:
            raise ConfigError(
                f"no {tag} prompt is left: all {size} are in the files to exclude; leave the tag out of the shares"
            )
        turn += 1
    return drawn


def _choices(tag: str, number: int) -> list[Any]:
    """The `number`-th combination of the tag's choices."""
    chosen = []
    for values in CHOICES[tag]:
        number, index = divmod(number, len(values))
        chosen.append(values[index])
    return chosen


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"
