"""A small valid world, made once; every case gets a folder of its own to spoil copies in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import blip3o_grpo.cluster
from blip3o_grpo.configs import RunConfig, dump_config
from blip3o_grpo.evaluation.heldout import Evaluation, save_images
from blip3o_grpo.policies import BLIP3oNext, random_policy
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, RolloutRecorder
from tests.robustness.case import World

WORDS = ("TAXI", "BANK", "CAFE", "EXIT")


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    return random_policy(tmp_path_factory.mktemp("policy") / "random", num_image_tokens=64)


@pytest.fixture(scope="session")
def shared(policy, tmp_path_factory):
    """Values of a valid recipe and study, and the folder of a run that has trained a step."""
    folder = tmp_path_factory.mktemp("valid")
    prompts = folder / "train.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f'a sign that says "{word}"'}) + "\n" for word in WORDS))
    recipe = {
        "run_dir": str(folder / "not-there-yet"),
        "policy": {"path": str(policy)},
        "prompts": {"train": str(prompts), "heldout": str(prompts)},
        "rollout": {"prompts_per_step": 2, "group_size": 4},
        "rewards": [{"name": "ocr"}],
        "trainer": {"max_steps": 4},
        "report_to": [],
    }
    study = {"study_dir": "study", "base": "base.yaml", "arms": [{"name": "a", "weights": {"ocr": 1}}]}
    run = folder / "run"
    build_run(run, RunConfig.model_validate({**recipe, "run_dir": str(run)}))
    return recipe, study, run


def build_run(run, config):
    """Configuration, a step's metrics and rollouts, the first evaluation: a run that was interrupted."""
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(config))
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "reward/ocr": 0.5}\n')
    image = np.zeros((8, 8, 3), np.uint8)
    group = RolloutGroup(
        Prompt("a", 'a sign that says "A"'),
        [],
        tuple(
            Rollout(Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), 0, member), image, {"ocr": member / 2})
            for member in range(2)
        ),
    )
    RolloutRecorder(run).record(0, RolloutBatch((group,), {}, 0))
    Evaluation(0, 1, 2, {"ocr": 0.5}, {"ocr": (0.4, 0.6)}, {"a": {"ocr": 0.5}}).save(run / "evaluations/before.json")
    save_images(run / "evaluations/before-images", [group])


@pytest.fixture
def world(shared, policy, tmp_path, monkeypatch):
    """Any attempt to load weights or to start Ray fails the test."""

    def refuse(*_, **__):
        pytest.fail("a model was loaded or Ray was started before the input was checked")

    monkeypatch.setattr(BLIP3oNext, "from_pretrained", refuse)
    monkeypatch.setattr(blip3o_grpo.cluster.ray, "init", refuse)
    monkeypatch.chdir(tmp_path)
    recipe, study, run = shared
    study = {**study, "study_dir": str(tmp_path / "study")}
    return World(tmp_path, policy, yaml.safe_load(yaml.safe_dump(recipe)), study, run)
