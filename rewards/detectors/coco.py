"""The 80 object classes of COCO, in detector order, worded as GenEval words them."""

from __future__ import annotations

import re
from collections.abc import Collection

COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's own names; a detector's label 0..79 is an index into this."""

GENEVAL_WORDING = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""Where GenEval's name differs, so that a prompt cannot be misread."""

GENEVAL_NAMES = tuple(GENEVAL_WORDING.get(name, name) for name in COCO_NAMES)
"""The same 80 classes as GenEval's prompts name them; what the COCO detectors here answer with."""

SYNONYMS = {
    "person": "people, man, men, woman, women, boy, girl, child, children, kid, human, pedestrian",
    "bicycle": "bike, cycle", "car": "automobile, sedan, taxi, cab", "motorcycle": "motorbike, moped, scooter",
    "airplane": "plane, aeroplane, aircraft, jet", "bus": "coach", "train": "locomotive",
    "truck": "lorry, pickup, van", "boat": "ship, sailboat", "traffic light": "stoplight, traffic signal",
    "fire hydrant": "hydrant", "stop sign": "stopsign", "parking meter": "meter", "bird": "sparrow, pigeon",
    "cat": "kitten", "dog": "puppy", "horse": "pony, foal", "sheep": "lamb", "cow": "cattle, bull, calf, ox",
    "backpack": "rucksack", "umbrella": "parasol", "handbag": "purse, bag", "tie": "necktie",
    "suitcase": "luggage, trunk", "skis": "ski", "frisbee": "disc",
    "sports ball": "ball, football, basketball, soccer ball, tennis ball, volleyball", "baseball bat": "bat",
    "baseball glove": "glove, mitt", "tennis racket": "racket, racquet, tennis racquet",
    "wine glass": "glass, wineglass, goblet", "cup": "mug", "bowl": "dish", "sandwich": "burger, hamburger",
    "hot dog": "hotdog, frankfurter", "donut": "doughnut", "chair": "armchair, seat", "couch": "sofa, settee",
    "potted plant": "plant, houseplant, pottedplant, flowerpot", "dining table": "table, desk, diningtable",
    "toilet": "lavatory", "tv": "television, telly, tv set, tv monitor, tvmonitor", "laptop": "notebook",
    "mouse": "computer mouse, mice", "remote": "tv remote, remote control", "keyboard": "computer keyboard",
    "cell phone": "phone, cellphone, mobile, mobile phone, smartphone, telephone", "microwave": "microwave oven",
    "oven": "stove, cooker", "sink": "basin, washbasin", "refrigerator": "fridge, freezer", "clock": "watch",
    "teddy bear": "teddy, teddybear, plush toy, stuffed animal", "hair drier": "hair dryer, hairdryer, hairdrier",
}  # fmt: skip
"""COCO's names to what people write instead."""

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
"""COCO's category ids, 1 to 90 with gaps, in the same order; some detectors answer with these instead of 0..79."""


def nearest_class(word: str, known: Collection[str]) -> str | None:
    """The class that a word means, in any case, of those that a detector knows; None: no idea.

    Meaning comes before spelling, in which a sofa is near a boat.
    """
    words = " ".join(re.split(r"[\s_-]+", word.strip().casefold()))
    for form in (words, words.removesuffix("s"), words.removesuffix("es")):
        meant = next((name for name, others in SYNONYMS.items() if form in others.split(", ")), form)
        for name in (form, meant, GENEVAL_WORDING.get(meant)):
            if name in known:
                return name
    return None
