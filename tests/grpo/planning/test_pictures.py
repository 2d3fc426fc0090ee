"""Pictures that cannot all be in memory are refused before anything starts, with the numbers that decide."""

import psutil
import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.planning.pictures import check_pictures, require_memory
from blip3o_grpo.policies import image_side


def test_the_limit_is_this_machines_memory():
    fits = psutil.virtual_memory().total // (3 * 64**2)
    require_memory(fits, 64, "images")
    with pytest.raises(ConfigError, match=rf"images: {2 * fits} pictures of 64 x 64 px are .* GB of memory"):
        require_memory(2 * fits, 64, "images")


def test_a_step_and_an_evaluation_are_compared_with_it(make_config, policy_path, prompts, monkeypatch):
    """What counts of an evaluation: the prompts there are, not those asked for."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 10**9}))
    side = image_side(policy_path)
    config = make_config(
        rollout={"prompts_per_step": 2, "group_size": 4}, evaluation={"num_prompts": 10**9, "images_per_prompt": 1}
    )
    check_pictures(config, policy_path, prompts)
    many = 10**9 // (3 * side**2)
    with pytest.raises(ConfigError, match="rollout.prompts_per_step x rollout.group_size"):
        check_pictures(make_config(rollout={"prompts_per_step": many, "group_size": 2}), policy_path, prompts)
    with pytest.raises(ConfigError, match="prompts x evaluation.images_per_prompt"):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 8 * 3 * side**2}))
        check_pictures(make_config(evaluation={"num_prompts": 8, "images_per_prompt": 2}), policy_path, prompts)
