"""The GPU benchmark runs at a tiny size on a CPU, on a machine that has neither Ray, vLLM, TRL nor pydantic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.bench_gpu import LOGPROBS, goal_lines, goals, head_lines, main, measure, stage_lines
from scripts.gpu_stages import RELEASED, Settings, decode_as_released, decoding, prefill, sampling
from scripts.make_full_size import make_in_memory

SCRIPT = Path(__file__).parents[2] / "scripts/bench_gpu.py"
ABSENT = ("ray", "vllm", "trl", "pydantic", "omegaconf", "paddleocr", "datasets")
RUN = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TINY = {
    "scale": 0.02,
    "prompts": 2,
    "group_size": 2,
    "images_per_decode": 4,
    "steps": 2,
    "few_steps": 1,
    "rollouts": 1,
    "repeats": 1,
}


@pytest.fixture(scope="module")
def policy():
    return make_in_memory(TINY["scale"], 0, "cpu", torch.float32)


def run_without_absent(*arguments: str) -> str:
    command = [sys.executable, "-c", RUN, str(SCRIPT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=550).stdout


def test_it_starts_without_the_packages_that_a_gpu_machine_may_lack():
    assert "--dry-run" in run_without_absent("--help")


def test_every_way_does_the_stage_s_work(policy):
    """Shapes of what each way returns; in float32 the released decoding and ours also give the same pictures."""
    settings = Settings(device="cpu", compile=False, **TINY)
    space, width = policy.image_tokens, policy.config.hidden_size
    released, ours, chunk = sampling(policy, settings)
    assert (released.images, ours.images, chunk.images) == (4, 4, 1)
    assert chunk.run().shape == (1, space.num_tokens)
    assert released.run()[:, -space.num_tokens :].shape == ours.run().shape == (4, space.num_tokens)
    plain, larger, shared = (way.run() for way in prefill(policy, settings))
    assert plain.shape == (4, space.num_tokens + 1, width)
    torch.testing.assert_close(shared, larger, atol=1e-5, rtol=0)
    pictures = [way.run() for way in decoding(policy, settings)]
    assert (pictures[0].int() - pictures[1].int()).abs().max() <= 1
    assert pictures[2].shape == pictures[1].shape
    hidden, noise = torch.randn(1, space.num_tokens + 1, width), policy.noise([0])
    calls = []
    hook = policy.connector.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    decode_as_released(policy, hidden, noise, 3)
    hook.remove()
    assert calls == [2, 2, 2]


def test_rates_are_relative_to_the_released_way(policy):
    settings = Settings(device="cpu", compile=False, **TINY)
    rows = measure(decoding(policy, settings), "cpu", repeats=1)
    assert rows[RELEASED]["speedup"] == 1
    assert all(row["images_per_second"] == row["batch"] / row["seconds"] for row in rows.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "--repeats 0: give 1 or more"),
        (["--scale", "2"], "--scale 2: give a share of the released size"),
        (["--steps", "2"], "--few-steps 2: give less than --steps 2"),
        (["--prompts", "1", "--group-size", "1"], "give 2 images or more"),
        (["--calibration", f"{__file__}/x.json"], f"cannot write {__file__}/x.json"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--dry-run", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]


def test_goals_are_judged_on_a_gpu_at_full_size_only():
    def row(speedup: float, peak: int | None = None) -> dict:
        return {"batch": 1, "seconds": 1, "images_per_second": 1, "speedup": speedup, "peak_bytes": peak}

    stages = {
        "decode": {
            RELEASED: row(1),
            "ours, 30 steps": row(1.2),
            "compiled, 30 steps": row(1.6),
            "ours, 15 steps": row(3),
        },
        LOGPROBS: {"whole vocabulary": row(1, 100), "ours": row(1.4, 40)},
    }
    found = goals(stages, Settings())
    assert [goal["met"] for goal in found] == [True, False, True]
    assert [goal["measured"] for goal in found] == [1.6, 1.4, 0.4]
    full, small = {"device": "cuda", "scale": 1.0}, {"device": "cpu", "scale": 0.1}
    verdicts = goal_lines({"goals": found, "settings": full})
    assert [line.rpartition(" ")[2] for line in verdicts] == ["(met)", "(MISSED)", "(met)"]
    assert all("not judged in a dry run" in line for line in goal_lines({"goals": found, "settings": small}))
    assert len(head_lines({"device": "GPU", "torch": "2", "settings": full})) == 2
    assert "says nothing about the released model" in head_lines({"device": "cpu", "torch": "2", "settings": small})[1]
    assert "1.60x        -" in stage_lines("decode", stages["decode"])[2]


@pytest.mark.slow
def test_a_dry_run_measures_every_stage(tmp_path):
    file = tmp_path / "bench.json"
    arguments = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    shown = run_without_absent("--dry-run", *arguments, "--json", str(file))
    report = json.loads(file.read_text())
    assert list(report["stages"]) == ["sample", "prefill", "decode", LOGPROBS, f"{LOGPROBS}, with the AR part"]
    theirs, ours = report["stages"][LOGPROBS].values()
    assert ours["peak_bytes"] > 0 and theirs["peak_bytes"] > 0
    assert "says nothing about the released model on a GPU" in shown
