"""What a run's check says of rewards and their files, each thing in one line, once."""

from types import SimpleNamespace

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rollout import Prompt
from blip3o_grpo.validate import check_prompts, find_checked

REWARD = "def half(images, prompts, metadata):\n    return [0.5] * len(images)\n"


def test_which_of_two_files_of_one_name_is_used_is_said_once(tmp_path, monkeypatch, capsys):
    for folder in ("recipe", "site"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(REWARD)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    section = RewardSection(name="half", type="twice:half", folder=str(tmp_path / "recipe"))
    for _ in range(3):
        find_checked(section)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and f"{tmp_path}/recipe/twice.py is used" in line


def test_what_rewards_warn_of_is_printed_once(make_config, capsys):
    options = {"detector": "shapes", "colors": "nearest"}
    config = make_config(rewards=[{"name": "geneval", "options": options}])
    record = {"tag": "mine", "include": [{"class": "star", "count": 1}]}
    prompts = [Prompt(id=text, text=text, metadata=record) for text in ("a star", "one star")]
    check_prompts(prompts, "mine.jsonl", SimpleNamespace(encode=len), config)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "warning: mine.jsonl: unknown GenEval `tag` 'mine': it is scored as all kinds of prompts but"
    )
