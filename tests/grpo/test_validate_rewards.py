"""What a run's check says of reward files: one line, once."""

import logging

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.validate import find_checked

REWARD = "def half(images, prompts, metadata):\n    return [0.5] * len(images)\n"


def test_which_of_two_files_of_one_name_is_used_is_said_once(tmp_path, monkeypatch, caplog):
    for folder in ("recipe", "site"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    section = RewardSection(name="half", type="twice:half", folder=str(tmp_path / "recipe"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            find_checked(section)
    (message,) = caplog.messages
    assert f"{tmp_path}/recipe/twice.py is used" in message and "\n" not in message
