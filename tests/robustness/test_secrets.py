"""Secrets stay out of configurations, of what rewards that failed leave behind, and of messages."""

import numpy as np
import pytest
import yaml

from blip3o_grpo.configs import ConfigError, RewardSection, load_run_config
from blip3o_grpo.configs.secret_names import is_secret_name
from blip3o_grpo.rewards import RewardBatch, adapt
from blip3o_grpo.rewards.redaction import redact
from blip3o_grpo.rollout.workers.reward import RewardWorker

SECRET = "s3cret-value-42"


class Leaky:
    """Says its token when it fails."""

    def __call__(self, batch):
        raise OSError(f"401 for url https://me:pass@host/score?key={SECRET}")


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "api_key", "x-api-key", "Authorization", "AWS_SECRET_ACCESS_KEY", "password"]
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["token_env", "TOKENIZERS_PARALLELISM", "num_tokens", "HF_TOKEN_PATH", "monkey", "key"]
)
def test_names_of_other_things(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"nested": {"api_key": SECRET}}},
        {"options": {"url": f"https://me:{SECRET}@host"}},
        {"options": {"headers": [f"ghp_{'a' * 36}"]}},
        {"runtime_env": {"env_vars": {"HF_TOKEN": SECRET}}},
        {"runtime_env": {"pip": [f"mine @ git+https://{SECRET}@host/repo"]}},
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(shared, tmp_path, changes):
    recipe, _, _ = shared
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "rewards": [{"name": "ocr", **changes}]}))
    with pytest.raises(ConfigError, match="looks like a secret") as error:
        load_run_config(path)
    assert SECRET not in str(error.value) and "ghp_" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"token_env": "HF_TOKEN", "stop_token": "<s>", "num_tokens": 5}},
        {"runtime_env": {"env_vars": {"HF_TOKEN": "${HF_TOKEN}", "TOKENIZERS_PARALLELISM": "false"}}},
        {"runtime_env": {"pip": ["mine @ git+ssh://git@host/repo"]}},
    ],
)
def test_references_and_innocent_names_are_taken(changes):
    RewardSection(name="mine", **changes)


def test_a_reward_that_failed_leaves_no_secret_behind(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    worker = RewardWorker.__new__(RewardWorker)
    worker._reward, worker._reward_name, worker._batch_size = adapt(Leaky()), "leaky", None
    failure = worker._judge_group(RewardBatch([np.zeros((2, 2, 3), np.uint8)], ["a sign"], [{}]), False)
    for text in (failure.message, failure.traceback):
        assert SECRET not in text and "me:pass" not in text
        assert "key=[MY_API_KEY]" in text and "https://[hidden]@host" in text


def test_short_and_innocent_values_stay(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "a")
    monkeypatch.setenv("GREETING", "hello there")
    assert redact("hello there, a sign") == "hello there, a sign"
