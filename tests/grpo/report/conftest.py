"""Run folders for the tests of the report: small ones with everything in them, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from blip3o_grpo.configs import RunConfig, dump_config
from blip3o_grpo.evaluation.grids import save_grid
from blip3o_grpo.evaluation.heldout import Evaluation, save_images
from blip3o_grpo.report import write_report
from blip3o_grpo.rollout.recorder import RolloutRecorder
from blip3o_grpo.rollout.types import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup

PROMPTS = ('a red sign that says "TAXI"', "<script>alert('x')</script> & <b>bold</b>", "a photo of two dogs")
TAGS = {"single_object": (0.2, 0.5), "color_attr": (0.1, 0.3)}
STEPS = 24


def build_config(path: Path) -> None:
    """Only the configuration: the folder of a run that has just started."""
    config = RunConfig.model_validate(
        {
            "run_dir": str(path),
            "policy": {"path": "tiny"},
            "prompts": {"train": "train.jsonl", "heldout": "heldout.jsonl"},
            "rollout": {"prompts_per_step": 3, "group_size": 4},
            "rewards": [{"name": "ocr"}, {"name": "geneval", "type": "a.b:C", "weight": 0.5}],
            "trainer": {"max_steps": STEPS, "beta": 0.01},
        }
    )
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(dump_config(config), encoding="utf-8")


def build_run(path: Path, *, images: bool = True) -> Path:
    """A finished run with everything that the report shows."""
    build_config(path)
    rng = np.random.default_rng(0)
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(1, STEPS + 1):
            file.write(json.dumps(step_metrics(step, rng)) + "\n")
    for name, step in (("before", 0), ("step-12", 12), ("after", STEPS)):
        build_evaluation(path, name, step, images)
    recorder = RolloutRecorder(path)
    for step in range(1, STEPS + 1):
        rewards = [{"ocr": 0.0, "geneval": None}, {"ocr": 1.0, "geneval": None}]
        groups = [build_group(str(i), text, step, rng, rewards, side=56) for i, text in enumerate(PROMPTS)]
        recorder.record(step, RolloutBatch(tuple(groups), {}, 0))
    versions = {"python": "3.11", "torch": "2.13"}
    summary = {"steps": STEPS, "seconds": 3725.2, "peak_memory_gb": 6.94, "mismatch_max": 2e-7, "versions": versions}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "environment.json").write_text(json.dumps({"starts": [build_start(0, "2.13"), build_start(12, "2.14")]}))
    return path


def build_start(step: int, torch: str) -> dict:
    """An entry of environment.json."""
    return {
        "started": f"2026-11-28T1{step // 12}:00:00+00:00",
        "step": step,
        "command": "blip3o-grpo train 'my <b>recipe</b>.yaml' trainer.max_steps=24",
        "folder": "/home/me",
        "versions": {"python": "3.11.7", "torch": torch, "trl": "1.16.0"},
        "code": {"commit": "0123456789abcdef0123456789abcdef01234567", "changed_files": step // 12},
        "machine": {
            "cores": 2,
            "memory_gb": 23.5,
            "gpus": [{"name": "NVIDIA H200", "memory_gb": 140.4}] * (step // 12),
            "system": "Linux 6.1, x86_64",
        },
    }


def step_metrics(step: int, rng: np.random.Generator) -> dict[str, float | None]:
    """One line of metrics.jsonl; the reward rises, and one step has no KL."""
    ocr, geneval = 0.3 + 0.4 * step / STEPS + rng.normal(0, 0.03), 0.2 + 0.2 * step / STEPS + rng.normal(0, 0.03)
    return {
        "step": step,
        "reward/ocr": ocr,
        "reward/geneval": geneval,
        "reward/mean": ocr + 0.5 * geneval,
        "kl/reference": None if step == 5 else 0.001 * step,
        "mismatch/mean_abs": 2e-7,
        "mismatch/max_abs": 1e-5,
        **{f"time/{stage}": 2.0 + rng.random() for stage in ("sample", "decode", "score", "train", "step")},
    }


def build_evaluation(path: Path, name: str, step: int, images: bool = True) -> None:
    """What `evaluation.heldout.evaluate` saves: `evaluations/NAME.json`, its pictures, and `grids/NAME.png`."""
    gain = 0.4 * step / STEPS
    means = {"ocr": 0.3 + gain, "geneval": 0.15 + gain / 2, "geneval/overall": 0.15 + gain / 4}
    intervals = {reward: (mean - 0.05, mean + 0.06) for reward, mean in means.items()}
    tags = {tag: (values[step > 0], values[step > 0] - 0.1, values[step > 0] + 0.1) for tag, values in TAGS.items()}
    shifts = {f"p{i}": 0.01 * (i - 5) for i in range(11)}  # what was trained on rises on every prompt
    per_prompt = {
        id_: {"ocr": means["ocr"] + gain * shift, "geneval": 0.15 + shift * step} for id_, shift in shifts.items()
    }
    evaluation = Evaluation(step, len(PROMPTS), 4, means, intervals, per_prompt, {"geneval": tags})
    evaluation.save(path / "evaluations" / f"{name}.json")
    rng = np.random.default_rng(step)
    rewards = [{"ocr": 0.25, "geneval": score} for score in (0.0, 0.5, 0.75, 1.0)]
    groups = [build_group(str(i), text, step, rng, rewards, side=56) for i, text in enumerate(PROMPTS[:-1])]
    groups.append(build_group("2", PROMPTS[-1], step, rng, [{**r, "ocr": None} for r in rewards], side=600))
    save_grid(path / "grids" / f"{name}.png", groups[:2])
    if images:
        save_images(path / "evaluations" / f"{name}-images", groups)


def build_group(
    name: str, text: str, step: int, rng: np.random.Generator, rewards: list[dict[str, float | None]], side: int
) -> RolloutGroup:
    """A group with one member for each entry of `rewards`."""
    members = [
        Rollout(
            Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), step, member), picture(rng, side), member_rewards
        )
        for member, member_rewards in enumerate(rewards)
    ]
    return RolloutGroup(Prompt(name, text), [], tuple(members))


def picture(rng: np.random.Generator, side: int) -> np.ndarray:
    """`[side, side, 3]` uint8: a flat colour with a dark square."""
    image = np.full((side, side, 3), rng.integers(100, 255, 3), np.uint8)
    image[side // 4 : side // 2, side // 4 : side // 2] = 30
    return image


@pytest.fixture(scope="session")
def builder():
    """`run(path, images=True)`, `config(path)` and `evaluation(path, name, step)` build a run folder or its parts."""
    return SimpleNamespace(run=build_run, config=build_config, evaluation=build_evaluation, prompts=PROMPTS)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run with its report."""
    run = build_run(tmp_path_factory.mktemp("runs") / "finished")
    write_report(run)
    return run


@pytest.fixture(scope="session")
def page(finished):
    return (finished / "report.html").read_text(encoding="utf-8")
