"""GenEval as a reward: a detector and a colour classifier look at the image, `rewards.geneval.scoring` judges."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from blip3o_grpo.rewards.detectors import build_detector, check_detector, detector_class
from blip3o_grpo.rewards.detectors.colors import build_colors, check_colors, color_names
from blip3o_grpo.rewards.detectors.detections import Detections
from blip3o_grpo.rewards.geneval.records import TAG_TABLE, is_record, parse_record, tag_warning
from blip3o_grpo.rewards.geneval.scoring import COUNTING_THRESHOLD, THRESHOLD, dense, keep_objects, strict
from blip3o_grpo.rewards.geneval.types import Record
from blip3o_grpo.rewards.images import as_rgb
from blip3o_grpo.rewards.types import RewardBatch, RewardError

SCORES = ("dense", "strict")


class GenEvalReward:
    """Scores images against the GenEval record in their prompt's metadata.

    Args:
        score: `dense` (training, graded) or `strict` (the official verdict, 0 or 1).
        detector: `mmdet`, `transformers`, `ssd` or `shapes`.
        detector_options: of its constructor.
        colors: `clip` (official) or `nearest` (nearest prototype colour).
        color_options: of its constructor.
        threshold: detections count above this score, in [0, 1).
        counting_threshold: the same for prompts with the tag `counting`.

    Raises:
        RewardError: an option out of range, or the detector cannot be built.
    """

    needs = 'a GenEval record: "tag" and "include" beside the prompt in its JSONL line'
    tags = TAG_TABLE

    def __init__(
        self,
        score: Literal["dense", "strict"] = "dense",
        detector: str = "transformers",
        detector_options: Mapping[str, Any] | None = None,
        colors: str = "clip",
        color_options: Mapping[str, Any] | None = None,
        threshold: float = THRESHOLD,
        counting_threshold: float = COUNTING_THRESHOLD,
    ) -> None:
        self.check_options(score, detector, detector_options, colors, color_options, threshold, counting_threshold)
        self.score = score
        self.threshold = threshold
        self.counting_threshold = counting_threshold
        self._detector = build_detector(detector, **(detector_options or {}))
        self._colors = build_colors(colors, **(color_options or {}))

    @staticmethod
    def is_outcome(score: str = "dense", **_: Any) -> bool:
        """The official verdict is one."""
        return score == "strict"

    @staticmethod
    def check_options(
        score: str = "dense",
        detector: str = "transformers",
        detector_options: Mapping[str, Any] | None = None,
        colors: str = "clip",
        color_options: Mapping[str, Any] | None = None,
        threshold: float = THRESHOLD,
        counting_threshold: float = COUNTING_THRESHOLD,
    ) -> None:
        """Check option values, those of detector and colours too, without loading anything; raises RewardError."""
        if score not in SCORES:
            raise RewardError(f"unknown GenEval score {score!r}; known: {', '.join(SCORES)}")
        check_detector(detector, **(detector_options or {}))
        check_colors(colors, **(color_options or {}))
        for name, value in (("threshold", threshold), ("counting_threshold", counting_threshold)):
            if not 0 <= value < 1:
                raise RewardError(f"GenEval {name} is {value}; it must lie in [0, 1)")

    @staticmethod
    def applicable(prompt: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the metadata is a GenEval record."""
        return is_record(metadata)

    @classmethod
    def check_prompt(cls, prompt: str, metadata: Mapping[str, Any], **options: Any) -> None:
        """Refuse a record that no picture, this detector or this classifier could ever satisfy, and warn of an odd tag.

        Loads nothing.

        Raises:
            RewardError: as `parse_record`.
        """
        if is_record(metadata):
            record = parse_record(
                metadata,
                detector_class(options.get("detector", "transformers")).class_names,
                color_names(options.get("colors", "clip"), **(options.get("color_options") or {})),
            )
            if odd := tag_warning(record.tag):
                warnings.warn(odd, stacklevel=2)

    def __call__(self, batch: RewardBatch) -> list[float | None]:
        """Scores in [0, 1]; None for prompts without a record (their images are not looked at)."""
        return [value for value, _ in self.explained_scores(batch)]

    def explained_scores(self, batch: RewardBatch) -> list[tuple[float | None, dict[str, Any] | None]]:
        """The scores of a call, each with what `explain` says about the image; one run of the detector for both."""
        return [(None, None) if found is None else (found[self.score], found) for found in self.explain(batch)]

    def explain(self, batch: RewardBatch) -> list[dict[str, Any] | None]:
        """Per image both scores, in words what is wrong, and what was found; None for prompts without a record.

        Returns:
            `{"dense": float, "strict": float, "reason": str, "found": {class: [[x0, y0, x1, y1, score], ...]}}`.
        """
        wanted = [index for index, metadata in enumerate(batch.metadata) if is_record(metadata)]
        images = [as_rgb(batch.images[index]) for index in wanted]
        results: list[dict[str, Any] | None] = [None] * len(batch)
        for index, image, detections in zip(wanted, images, self._detector(images) if wanted else (), strict=True):
            record = parse_record(batch.metadata[index], self._detector.class_names, self._colors.color_names)
            results[index] = self._judge(image, detections, record)
        return results

    def _judge(self, image: np.ndarray, detections: Detections, record: Record) -> dict[str, Any]:
        threshold = self.counting_threshold if record.tag == "counting" else self.threshold
        objects = keep_objects(detections, threshold)

        def colors(indices: Sequence[int]) -> list[str]:
            return self._colors(image, detections, indices)

        correct, reasons = strict(record, objects, detections.boxes, colors)
        return {
            "dense": dense(record, objects, detections.boxes, colors),
            "strict": float(correct),
            "reason": "\n".join(reasons),
            "found": {
                name: [[*map(float, detections.boxes[i]), float(detections.scores[i])] for i in indices]
                for name, indices in objects.items()
            },
        }
