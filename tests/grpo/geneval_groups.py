"""Groups of drawn images scored by the real GenEval reward, and an independent reading of official result files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.rewards.geneval import TAGS
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup
from blip3o_grpo.rollout.messages import DecodedChunk, GroupRequest, Work
from blip3o_grpo.rollout.workers.reward import RewardWorker

OPTIONS = {"detector": "shapes", "colors": "nearest", "counting_threshold": 0.3, "score": "strict"}
REWARD = RewardSection(name="geneval", options=OPTIONS)
IMAGES = 3


def drawn_groups(skill: dict[str, float]) -> list[RolloutGroup]:
    """Per tag a different number of prompts, whose images show the prompt with a chance of `skill`, else another."""
    rng = random.Random(0)
    scenes = {}
    for number, tag in enumerate(TAGS):
        while sum(scene.metadata["tag"] == tag for scene in scenes.values()) < number + 2:
            scene = world.shapes(rng, tag)
            scenes[scene.prompt] = scene
    requests, images = [], []
    for index, scene in enumerate(scenes.values()):
        tag = scene.metadata["tag"]
        shown = [scene if rng.random() < skill.get(tag, 0.5) else world.shapes(rng, tag) for _ in range(IMAGES)]
        requests.append(GroupRequest(Prompt(f"p{index}", scene.prompt, scene.metadata), [], IMAGES, 0, (0,) * IMAGES))
        images.append(np.stack([world.render(scene) for scene in shown]))
    worker = RewardWorker("reward-geneval-0", "geneval", "geneval", OPTIONS, batch_size=5)
    scored = worker.score(DecodedChunk(tuple(requests), tuple(images), Work("decoder-0", 0.0, 0)), None, explain=True)
    completion = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0)
    return [
        RolloutGroup(
            request.prompt,
            [],
            tuple(
                Rollout(completion, pictures[i], {"geneval": scores[i]}, {"geneval": explanations[i]})
                for i in range(IMAGES)
            ),
        )
        for request, pictures, scores, explanations in zip(
            requests, images, scored.scores, scored.explanations, strict=True
        )
    ]


def read_as_official_summary(path: Path) -> dict[str, float]:
    """What `summary_scores.py` computes from a result file: accuracy per tag, the tags' mean, and its two shares."""
    frame = pd.read_json(path, orient="records", lines=True)
    correct: dict[str, list[bool]] = {}
    any_correct: dict[str, bool] = {}
    for row in frame.itertuples():
        correct.setdefault(row.tag, []).append(row.correct)
        any_correct[row.metadata] = any_correct.get(row.metadata, False) or row.correct
    accuracy = {tag: sum(values) / len(values) for tag, values in correct.items()}
    return accuracy | {
        "overall": sum(accuracy.values()) / len(accuracy),
        "images": sum(map(sum, correct.values())) / len(frame),
        "prompts": sum(any_correct.values()) / len(any_correct),
    }


def check_official_summary(path: Path, policy: dict) -> None:
    """Assert that the file gives the numbers that `eval --json` prints for a policy."""
    ours = {tag: mean for tag, (mean, _, _) in policy["tags"]["geneval"].items()}
    ours |= {"overall": policy["means"]["geneval/overall"], "images": policy["means"]["geneval"]}
    expected = ours | {"prompts": policy["prompts_with_a_correct_image"]["mean"]}
    assert read_as_official_summary(path) == pytest.approx(expected)
