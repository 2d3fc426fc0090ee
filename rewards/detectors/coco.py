"""The 80 object classes of COCO, in detector order, worded as GenEval words them."""

from __future__ import annotations

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

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
"""COCO's category ids, 1 to 90 with gaps, in the same order; some detectors answer with these instead of 0..79."""
