"""A random tiny policy, prompts, and runs on the in-process stand-in of `toy_pipeline.py`.

What needs torch is imported by the fixtures that need it: tests of plain numbers start at once.
"""

from __future__ import annotations

import json

import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.run.folder import RunFolder

WORDS = ["TAXI", "BANK", "CAFE", "EXIT", "HOTEL", "BUS", "PARK", "OPEN"]


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory):
    from blip3o_grpo.policies import random_policy

    return random_policy(tmp_path_factory.mktemp("policy") / "random", num_image_tokens=64)


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "train.jsonl"
    lines = [{"id": w, "prompt": f'a red sign that says "{w}"', "target_text": w} for w in WORDS]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


@pytest.fixture(scope="session")
def make_config(policy_path, prompt_file, tmp_path_factory):
    """Builds small configurations, each with its own run folder; keyword arguments replace or extend sections."""

    def make(**sections) -> RunConfig:
        values = {
            "run_dir": str(tmp_path_factory.mktemp("run")),
            "policy": {"path": str(policy_path)},
            "prompts": {"train": str(prompt_file), "heldout": str(prompt_file)},
            "rollout": {"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0},
            "rewards": [{"name": "target"}],
            "trainer": {"max_steps": 4, "learning_rate": 1e-3, "beta": 0.01},
            "checkpoint": {"every_steps": 2},
            "report_to": [],
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section} if isinstance(values.get(name), dict) else section
        return RunConfig.model_validate(values)

    return make


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    return [Prompt(id=w, text=f'a red sign that says "{w}"', metadata={"target_text": w}) for w in WORDS]


@pytest.fixture(scope="session")
def fake_pipeline(policy_path):
    """Builds a `FakePipeline` on the random policy."""
    from tests.grpo.toy_pipeline import FakePipeline

    return lambda config, **options: FakePipeline(policy_path, config, **options)


@pytest.fixture(scope="session")
def run_toy(fake_pipeline, prompts):
    """Runs a configuration on a `FakePipeline`; returns trainer, pipeline and the lines of metrics.jsonl."""
    from blip3o_grpo.rank import run_training
    from blip3o_grpo.run.metrics import read_metrics

    def run(config, num_prompts=None, **pipeline_options):
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        pipeline = fake_pipeline(config, **pipeline_options)
        trainer = run_training(config, prompts[:num_prompts], prompts, pipeline)
        return trainer, pipeline, read_metrics(folder.metrics)

    return run
