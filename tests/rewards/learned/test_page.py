"""What `docs/preferences.md` shows is taken: options by their names, those of judges with their values."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from blip3o_grpo.rewards import find_reward

PAGE = (Path(__file__).parents[3] / "docs/preferences.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(part.split("```")[0]) for part in PAGE.split("```yaml\n")[1:]]
REWARDS = [reward for block in BLOCKS for reward in block["rewards"]]


@pytest.mark.parametrize("reward", REWARDS, ids=[reward["name"] for reward in REWARDS])
def test_options_of_the_page_are_taken(reward):
    spec, options = find_reward(reward.get("type", reward["name"])), reward.get("options", {})
    inspect.signature(spec.target).bind(**options)
    if "judge" in options:
        spec.check_options(options)


@pytest.mark.parametrize("name", ["pickscore", "hpsv2", "imagereward", "aesthetic", "preference"])
def test_the_page_names_every_option(name):
    for option in inspect.signature(find_reward(name).target).parameters:
        assert f"`{option}`" in PAGE or f"{option}:" in PAGE


def test_the_commands_that_fetch_name_every_default():
    for name in ("pickscore", "hpsv2", "imagereward", "aesthetic"):
        for option, parameter in inspect.signature(find_reward(name).target).parameters.items():
            if option in ("weights", "processor", "tokenizer"):
                assert f"hf download {parameter.default} " in PAGE
