"""The example recipes are valid."""

from pathlib import Path

import pytest

from blip3o_grpo.configs import load_run_config
from blip3o_grpo.rewards import check_options
from blip3o_grpo.rewards.http.client import RemoteReward
from blip3o_grpo.rollout.placement.resources import num_replicas
from blip3o_grpo.validate import check_run

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def load():
    return lambda name, folder: load_run_config(EXAMPLES / name, [f"run_dir={folder}"])


def test_replicas_and_batches(load, tmp_path):
    config = check_run(load("replicas.yaml", tmp_path)).config
    ocr, guard = config.rewards
    assert (num_replicas(config, ocr), ocr.batch_size) == (3, 32)
    assert (num_replicas(config, guard), guard.batch_size) == (2, None)
    parts = config.rollout.prompts_per_step * config.rollout.group_size // config.rollout.images_per_decode
    assert parts % ocr.replicas == 0  # every worker has the same share of a step


def test_remote(load, tmp_path):
    remote = load("reward_server/train.yaml", tmp_path).rewards[0]
    assert remote.target == "remote"
    check_options(RemoteReward, remote.options, remote.name)
