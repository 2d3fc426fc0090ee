"""Damaged run folders, and commands given nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from blip3o_grpo.rewards import RewardBatch, score
from blip3o_grpo.rewards.http.server import check_exposure, create_app
from blip3o_grpo.run.files import read_reward_state
from tests.robustness.case import Case, World, edit_json, replace

RECORDS = "rollouts/step-000000/rollouts.jsonl"
PICTURES = "evaluations/before-images/index.jsonl"
SECRET = "../../secret.png"


def _spoilt(name: str, content: bytes | str, *command: str):
    def act(world: World) -> str:
        run = world.run_copy()
        replace(run / name, content)
        return world.cli(command[0], run, *command[1:])

    return act


def _record(**changes: object):
    def act(world: World) -> str:
        run = world.run_copy()
        edit_json(run / RECORDS, **changes)
        return world.cli("rescore", run, "--rewards", "reference_guard")

    return act


def _picture(content: bytes):
    return _spoilt("rollouts/step-000000/000-best.png", content, "rescore", "--rewards", "reference_guard")


DAMAGED = [
    ("config.yaml", "a: [", "report", "not valid YAML"),
    ("config.yaml", "- a\n", "report", "not the configuration of a training run"),
    ("config.yaml", "trainer: {}\nrollout: {}\nrewards: []\n", "report", "not the configuration of a training run"),
    ("config.yaml", b"\xff\xfe", "report", "not UTF-8"),
    ("config.yaml", "", "rescore", "found nothing"),
    ("summary.json", "{", "report", "summary.json: not valid JSON"),
    ("summary.json", "[]", "report", "summary.json: "),
    ("summary.json", '{"steps": "all"}', "report", "summary.json: 'steps' is 'all'"),
    ("summary.json", b"\xff", "report", "summary.json: not UTF-8"),
    ("metrics.jsonl", '{"step": 1}\nhello\n{"step": 3}\n', "report", "metrics.jsonl:2: not valid JSON"),
    ("metrics.jsonl", '{"reward/mean": 1}\n', "report", "metrics.jsonl:1: 'step' is required"),
    ("metrics.jsonl", '{"step": 1, "reward/mean": "high"}\n', "report", "metrics.jsonl:1: 'reward/mean' is 'high'"),
    ("metrics.jsonl", "[1]\n", "report", "metrics.jsonl:1: "),
    ("metrics.jsonl", b"\xff\xff\n", "report", "metrics.jsonl:1: not valid JSON"),
    ("evaluations/before.json", "", "report", "before.json: not valid JSON"),
    ("evaluations/before.json", "{}", "report", "before.json: 'step' is required"),
    ("evaluations/before.json", '{"step": 0, "means": []}', "report", "before.json: "),
    (PICTURES, "{}\n", "report", "index.jsonl:1: 'prompt_id' is required"),
    (PICTURES, "\n{\n", "report", "index.jsonl:2: not valid JSON"),
    (PICTURES, json.dumps({"prompt_id": "a", "prompt": "a", "images": [SECRET], "rewards": {}}), "report", "images.0"),
    (PICTURES, json.dumps({"prompt_id": "a", "prompt": "a", "images": ["/x.png"], "rewards": {}}), "report", "images"),
    ("summary.json", '{"steps": 1, "seconds": "7", "peak_memory_gb": 1}', "report", "'seconds' is '7'; give a number"),
    ("summary.json", '{"steps": true, "seconds": 7, "peak_memory_gb": 1}', "report", "'steps' is true; give a whole"),
    (
        "metrics.jsonl",
        '{"step": 1, "time/step": "7"}\n',
        "report",
        ":1: 'time/step' is '7'; give a number",
    ),
    ("metrics.jsonl", '{"step": 1, "kl": Infinity}\n', "report", "metrics.jsonl:1: 'kl': Infinity is no number"),
    ("metrics.jsonl", '{"step": 1, "kl": 1e999}\n', "report", "metrics.jsonl:1: 'kl': 1e999 is more than"),
    ("metrics.jsonl", '{"step": -1}\n', "report", "metrics.jsonl:1: 'step' is -1; give 0 or more"),
    (
        PICTURES,
        json.dumps({"prompt_id": "a", "prompt": "a", "images": ["a.png", "b.png"], "rewards": {"ocr": [1]}}),
        "report",
        "index.jsonl:1: 'rewards.ocr' has 1 scores for 2 images",
    ),
    (
        "evaluations/before.json",
        '{"step": 0, "num_prompts": 1, "images_per_prompt": 1, "means": {"a": 1}, "intervals": {}, "per_prompt": {}}',
        "report",
        "before.json: 'intervals' lacks 'a'",
    ),
    (RECORDS, "{\n", "report", "rollouts.jsonl:1: not valid JSON"),
    (RECORDS, "[]\n", "report", "rollouts.jsonl:1: "),
]


def _nothing_recorded(world: World) -> str:
    run = world.run_copy()
    (run / RECORDS).unlink()
    return world.cli("rescore", run, "--rewards", "reference_guard")


def _unfinished(*command: str):
    return lambda world: world.cli(*(str(world.run) if word == "RUN" else word for word in command))


def _file_as_run(command: str):
    return lambda world: world.cli(command, world.write("file.txt", "hello"))


def _measured(world: World) -> str:
    return world.cli("plan", world.recipe(), "--measured", "/nowhere")


def _occupied(world: World) -> str:
    world.write("home/rollouts/mine.txt", "precious")
    try:
        return world.train(f"run_dir={world.folder / 'home'}")
    finally:
        assert (world.folder / "home/rollouts/mine.txt").read_text() == "precious"


def _sections(content: str):
    return lambda world: world.cli("rescore", world.run, "--config", world.write("r.yaml", content))


COMMANDS = [
    ("report on nothing", _unfinished("report", "/nowhere"), "is not a run folder"),
    ("report on a file", _file_as_run("report"), "is not a run folder"),
    ("rescore on nothing", _unfinished("rescore", "/nowhere", "--rewards", "ocr"), "is not a run folder"),
    ("rescore on a file", _file_as_run("rescore"), "is not a run folder"),
    ("rescore with nothing", _unfinished("rescore", "RUN"), "no reward to score with"),
    ("rescore with an unknown reward", _unfinished("rescore", "RUN", "--rewards", "ocrr"), "did you mean 'ocr'?"),
    ("rescore with a reward twice", _unfinished("rescore", "RUN", "--rewards", "ocr,ocr"), "asked for twice"),
    ("rescore without records", _nothing_recorded, "has no recorded rollouts"),
    ("rescore sections empty", _sections(""), "r.yaml: not a list of reward sections"),
    ("rescore sections of text", _sections("[ocr]"), "r.yaml: not a list of reward sections"),
    ("rescore sections no YAML", _sections("[ocr"), "r.yaml:1: not valid YAML"),
    ("eval of nothing", _unfinished("eval", "/nowhere"), "no such folder"),
    ("eval of an unfinished run", _unfinished("eval", "RUN"), "has not finished"),
    ("eval of an unknown suite", _unfinished("eval", "tiny", "--suite", "sight"), "known suites"),
    (
        "sample of 10^9 images",
        _unfinished("sample", "a", "--images", "1000000000"),
        "images is 1000000000; it may be 4096",
    ),
    (
        "sample of 10^9 steps",
        _unfinished("sample", "a", "--steps", "1000000000"),
        "steps is 1000000000; it may be 1000",
    ),
    ("eval of 10^9 images", _unfinished("eval", "tiny", "--images", "1000000000"), "give 4096 or less"),
    ("eval without prompts", _unfinished("eval", "tiny", "--prompts", "/nowhere.txt"), "no such prompt file"),
    ("eval to a text", _unfinished("eval", "tiny", "--out", "a.txt"), "written as .png"),
    ("eval results of ocr", _unfinished("eval", "tiny", "--results", "a.jsonl"), "suite 'ocr' has none"),
    ("sample of an unfinished run", _unfinished("sample", "a sign", "--policy", "RUN"), "has not finished"),
    ("sample to a text", _unfinished("sample", "a sign", "--out", "a.txt"), "written as a .png file"),
    ("sample of no folder", _unfinished("sample", "a sign", "--policy", "/nowhere"), "no such folder"),
    ("doctor on nothing", _unfinished("doctor", "--quick", "--policy", "/nowhere"), "no such folder"),
    ("doctor on no checkpoint", _unfinished("doctor", "--quick", "--policy", "."), "config.json is missing"),
    ("plan measured by nothing", _measured, "/nowhere"),
    ("plan of nothing", _unfinished("plan", "/nowhere.yaml"), "no such file"),
    ("prompts to a text", _unfinished("prompts", "text", "--out", "a.txt", "--count", "3"), ".jsonl"),
    ("train in a file", lambda w: w.train(f"run_dir={w.write('f', 'x')}"), "is a file"),
    ("train in somebody's folder", _occupied, "would replace its rollouts"),
    ("train in another run", lambda w: w.train("seed=5", f"run_dir={w.run}"), "another configuration"),
]


class Returns:
    """A reward that returns what it is told to."""

    def __init__(self, value: object):
        self.value = value

    def __call__(self, batch: RewardBatch) -> object:
        return self.value


RETURNED = [
    ("None", None, "NoneType instead of a list"),
    ("a number", 0.5, "float instead of a list"),
    ("an array", np.zeros(2), "ndarray instead of a list"),
    ("a tuple", (0.5, 0.5), "tuple instead of a list"),
    ("too few", [0.5], "1 scores for 2 images"),
    ("too many", [0.5] * 3, "3 scores for 2 images"),
    ("nothing", [], "0 scores for 2 images"),
    ("NaN", [0.5, float("nan")], "nan for prompt 'b'"),
    ("infinity", [float("-inf"), 0.5], "-inf for prompt 'a'"),
    ("NumPy's NaN", [np.float32("nan"), 0.5], "nan for prompt 'a'"),
    ("a text", [0.5, "1"], "'1' (str)"),
    ("a truth", [0.5, True], "True (bool)"),
    ("an array for a score", [0.5, np.zeros(1)], "(ndarray)"),
    ("a complex number", [0.5, 1j], "1j (complex)"),
    ("a whole number beyond floats", [0.5, 10**400], "inf for prompt 'b'"),
]


def _returned(value: object):
    batch = RewardBatch([np.zeros((2, 2, 3), np.uint8)] * 2, ["a", "b"], [{}, {}])
    return lambda world: world.call(score, Returns(value), batch, "odd")


def _reward_state(content: bytes):
    def act(world: World) -> str:
        path: Path = world.write("reward_state.pt", content)
        return world.call(read_reward_state, path)

    return act


STATES = [
    ("empty", b""),
    ("text", b"hello"),
    ("a pickle of code", b"cos\nsystem\n(S'touch /tmp/never'\ntR."),
    ("a plain pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94."),
]

CASES = [
    *(
        Case("run folder", f"{name} {content!r:.40}: {says}", _spoilt(name, content, command), (Path(name).name, says))
        for name, content, command, says in DAMAGED
    ),
    *(Case("command", name, act, (says,)) for name, act, says in COMMANDS),
    *(Case("reward", name, _returned(value), ("reward 'odd'", says)) for name, value, says in RETURNED),
    *(Case("reward state", name, _reward_state(content), ("reward_state.pt",)) for name, content in STATES),
    Case("record", "an image outside", _record(best={"member": 0, "image": SECRET}), (":1: 'best.image'",)),
    Case("record", "an absolute image", _record(worst={"member": 0, "image": "/x.png"}), (":1: 'worst.image'",)),
    Case("record", "images outside", _record(images=[SECRET]), (":1: 'images.0'",)),
    Case("record", "a member too many", _record(best={"member": 9, "image": "a.png"}), (":1: 'best.member' is 9",)),
    Case("record", "a member below 0", _record(best={"member": -1, "image": "a.png"}), (":1: 'best.member'",)),
    Case("record", "scores in words", _record(rollouts=[{"rewards": {"ocr": "x"}}]), (":1: 'rollouts.0.rewards.ocr'",)),
    Case("record", "no prompt", _record(prompt=...), (":1: 'prompt' is required",)),
    Case("record", "a picture cut off", _picture(b"\x89PNG"), ("000-best.png", "not a readable image")),
    Case("record", "a picture of text", _picture(b"hello"), ("000-best.png", "not a readable image")),
    Case("server", "the world, no token", lambda w: w.call(check_exposure, "0.0.0.0", None), ("give a token",)),
    Case("server", "an empty token", lambda w: w.call(create_app, Returns([]), "odd", token=""), ("empty token",)),
]
