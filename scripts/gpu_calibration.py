"""What `bench_gpu.py` measured as the constants that `blip3o-grpo plan --calibration FILE` divides a recipe by.

Seconds of one image on one GPU, by stage, with the card, the day, the command and the versions. A calibration of a dry
run says so, and `plan` refuses it (`grpo/planning/calibration.py`, which knows the same keys).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from scripts.gpu_stages import Settings

FORMAT = 1
PACKAGES = ("torch", "transformers", "diffusers", "accelerate")
CHUNK, WHOLE = "ours, one chunk", "ours"
"""Ways of the stage `sample`: two batches tell what a call costs and what an image adds."""
LEARN = "log-probs + backward, with the AR part"


def calibration(
    report: Mapping[str, Any], settings: Settings, policy: Mapping[str, int], dry: bool, day: str, command: str
) -> dict[str, Any]:
    """The file's content.

    Args:
        report: of `bench_gpu.py`, with all stages.
        settings: of the benchmark.
        policy: layers, width, image_tokens and image_vocabulary of what was measured.
        dry: the numbers say nothing about the released model on a GPU.
        day: of the measurement, as `2026-11-29`.
        command: that measured it.
    """
    stages = report["stages"]
    return {
        "format": FORMAT,
        "device": report["device"],
        "dry": dry,
        "day": day,
        "command": command,
        "versions": versions(),
        "policy": dict(policy),
        "dtype": "bfloat16" if settings.device == "cuda" else "float32",
        "seconds": {
            **sampling_seconds(stages["sample"]),
            "hidden_states": per_image(stages["prefill"]["ours: larger batch"]),
            "decode": {
                name: decoding_seconds(stages["decode"], way, settings)
                for name, way in (("eager", "ours"), ("compiled", "compiled"))
                if f"{way}, {settings.steps} steps" in stages["decode"]
            },
            "learn": per_image(stages[LEARN]["ours"]),
        },
    }


def per_image(row: Mapping[str, Any]) -> float:
    """Seconds."""
    return row["seconds"] / row["batch"]


def sampling_seconds(ways: Mapping[str, Any]) -> dict[str, float]:
    """Of an engine call whatever it draws, and of each image in it: the line through two batches, never below 0."""
    chunk, whole = ways[CHUNK], ways[WHOLE]
    image = max(0.0, (whole["seconds"] - chunk["seconds"]) / (whole["batch"] - chunk["batch"]))
    return {"sample_call": max(0.0, whole["seconds"] - whole["batch"] * image), "sample": image}


def decoding_seconds(ways: Mapping[str, Any], way: str, settings: Settings) -> dict[str, float]:
    """Of one diffusion step and of what comes once, without hidden states: the line through two numbers of steps."""
    many, few = (ways[f"{way}, {steps} steps"] for steps in (settings.steps, settings.few_steps))
    step = max(0.0, (per_image(many) - per_image(few)) / (settings.steps - settings.few_steps))
    return {"step": step, "once": max(0.0, per_image(many) - settings.steps * step)}


def versions() -> dict[str, str]:
    """Of the packages that decide."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
