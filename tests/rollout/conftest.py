"""One local Ray cluster and one random tiny policy for all rollout tests.

What needs torch is imported by the fixtures that need it: tests of plain numbers start at once.
"""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout import Prompt

WORDS = ["TAXI", "BANK", "CAFE", "HOTEL 24", "BUS", "EXIT"]


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory):
    from blip3o_grpo.policies import random_policy

    return random_policy(tmp_path_factory.mktemp("policy") / "random", num_image_tokens=64)


@pytest.fixture(scope="session")
def policy(policy_path):
    from blip3o_grpo.policies import BLIP3oNext

    return BLIP3oNext.from_pretrained(policy_path)


@pytest.fixture(scope="session")
def prompts():
    return [Prompt(word, f'a red sign that says "{word}"', {"target_text": word}) for word in WORDS]


@pytest.fixture(scope="session")
def cluster():
    import ray

    search = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    os.environ["SERVICE_TOKEN"] = "s3cret"  # for `${SERVICE_TOKEN}`, which Ray's workers expand
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(search)}},  # workers find `toy_rewards` there
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def make_config(policy_path, tmp_path_factory):
    """Small configurations; keyword arguments replace or extend sections."""

    def make(**sections) -> RunConfig:
        values = {
            "run_dir": str(tmp_path_factory.mktemp("run")),
            "policy": {"path": str(policy_path)},
            "prompts": {"train": "unused.txt", "heldout": "unused.txt"},
            "rollout": {
                "prompts_per_step": 4,
                "group_size": 3,
                "num_diffusion_steps": 2,
                "prompts_per_chunk": 2,
                "images_per_decode": 3,
            },
            "rewards": [{"name": "brightness", "type": "toy_rewards:Brightness"}],
            "cluster": {"threads": 1},
            "faults": {"backoff_s": 0.01},
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section} if isinstance(values.get(name), dict) else section
        return RunConfig.model_validate(values)

    return make


@pytest.fixture(scope="session")
def launch(cluster, policy, policy_path):
    """Context manager: a pipeline that has the policy's weights as version 0."""
    from blip3o_grpo.rollout import RolloutPipeline

    @contextmanager
    def launched(config):
        pipeline = RolloutPipeline.launch(config, policy_path)
        try:
            pipeline.sync_weights(policy.ar.state_dict(), version=0)
            yield pipeline
        finally:
            pipeline.close()

    return launched
