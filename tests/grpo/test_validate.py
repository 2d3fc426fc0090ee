"""What is checked before a run starts, as far as no run is needed to see it."""

from types import SimpleNamespace

from blip3o_grpo.rollout import Prompt
from blip3o_grpo.validate import check_prompts


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
