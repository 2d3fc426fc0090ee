"""The step benchmark: its sums, its refusals, its stops of a run; and once the whole script on a small step."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, load_run_config
from scripts.bench_step import (
    OURS,
    PLAIN,
    RELEASED,
    check_comparable,
    company,
    conclusion,
    disturbances,
    measured_config,
    summarise,
)
from scripts.paused_run import WARM_UP, Turn, stage_seconds
from scripts.process_tree import ProcessTree

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/bench_step.py"


def turn(seconds, cpu, others=0.0, **stages):
    return Turn(seconds, cpu, stages or {"sample": cpu}, others, {"sample": seconds})


def test_ratios_are_of_the_same_turn_and_medians_of_the_turns():
    turns = {
        OURS: [turn(2, 3), turn(4, 6), turn(2, 3)],
        PLAIN: [turn(3, 6), turn(5, 6), turn(2, 4)],
        RELEASED: [turn(20, 10)] * 3,
    }
    sides = summarise(turns, num_images=10, cores=2)
    assert sides[OURS]["seconds"] == 2 and sides[OURS]["images_per_s"] == 5
    assert sides[OURS]["cpu_ms_per_image"] == 300 and sides[OURS]["idle_share"] == 0.25
    assert sides[PLAIN]["ratio"] == 1.25 and sides[PLAIN]["ratio_range"] == [1.0, 1.5]
    assert sides[PLAIN]["cpu_ratio_of_ours"] == 0.75
    assert "not clearly faster or slower than the best plain loop: 1.25 times as fast" in conclusion(sides)
    assert sides[OURS]["stages"]["sample"] == {"cpu_ms_per_image": 300, "cpu_share": 1, "seconds": 2}


@pytest.mark.parametrize(("plain", "verdict"), [(2.5, "is faster than"), (1.5, "is slower than")])
def test_the_conclusion_says_which_way_it_goes(plain, verdict):
    turns = {OURS: [turn(2, 3)], PLAIN: [turn(plain, 3)], RELEASED: [turn(9, 9)]}
    assert verdict in conclusion(summarise(turns, 10, 2))


def test_a_machine_that_was_busy_otherwise_is_told():
    turns = {OURS: [turn(2, 3)], PLAIN: [turn(2, 3, others=1.0)], RELEASED: [turn(9, 9, others=0.1)]}
    (line,) = disturbances(summarise(turns, 10, 2))
    assert line.startswith("plain loop: other programs used 25%")


def test_a_stop_inside_a_step_counts_as_nothing():
    metrics = {"time/sample": 1.0, "time/decode": 2.0, "time/score": 0.5, "time/train": 42.0, "time/sync": 40.5}
    found = stage_seconds({**metrics, "time/step": 46.0}, seconds=6.0)
    assert found == {"sample": 1.0, "decode": 2.0, "score": 0.5, "learn": 1.5, "sync": 0.5}
    assert stage_seconds({**metrics, "time/step": 46.0}, seconds=46.5)["sync"] == 40.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.weight_decay=0.1", "trainer.weight_decay: .* only trainer.weight_decay=0.0 compares"),
        ("policy.dtype=bfloat16", 'only policy.dtype="float32" compares'),
        ("cluster.gpus_per_decoder=1", "only cluster.gpus_per_decoder=0 compares"),
        ("trainer.lora.rank=8", "only trainer.lora=null compares"),
        ("trainer.entropy_coef=0.1", "only trainer.entropy_coef=0.0 compares"),
        ("trainer.loss_type=sapo", "trainer.loss_type: .* dapo, grpo"),
        ("rollout.guidance_interval=[0.5, 1]", r"only rollout.guidance_interval=\[0.0, 1.0\] compares"),
        ("rollout.max_staleness=1", "only rollout.max_staleness=0 compares"),
        ("rollout.noises_per_completion=2", "only rollout.noises_per_completion=1 compares"),
        ("rollout.subset_size=4", "only rollout.subset_size=null compares"),
        ("rewards.0.runtime_env={env_vars: {A: b}}", "'ocr': .* runtime_env"),
    ],
)
def test_a_recipe_that_the_plain_loop_cannot_follow_is_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        check_comparable(load_run_config(DEFAULT_RECIPE, [override]))


def test_a_head_that_learns_compares_with_nothing():
    with pytest.raises(ConfigError, match=r"learn: the plain loops learn tokens alone; only learn=\[tokens\] compares"):
        check_comparable(load_run_config(DEFAULT_RECIPE, ["learn=[head]", "head.credit=shared"]))


def test_the_recipe_is_measured_as_it_is_but_for_what_happens_every_so_many_steps():
    recipe = load_run_config(DEFAULT_RECIPE)
    check_comparable(recipe)
    config = measured_config(recipe, repeats=50)
    assert config.trainer.max_steps == config.checkpoint.every_steps > WARM_UP + 50
    assert measured_config(recipe, repeats=5).trainer == recipe.trainer
    assert (config.rollout, config.rewards, config.policy) == (recipe.rollout, recipe.rewards, recipe.policy)
    assert not config.evaluation.every_steps


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "--repeats is 0; it must be at least 1"),
        (["--beside", "-1"], "--beside is -1; give 0 or more"),
        (["rollout.grup_size=4"], "did you mean"),
        (["no_such.yaml"], "no_such.yaml"),
        (["--policy", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


def test_a_tree_of_processes_stops_and_goes_on():
    """Also a process that was started since the last stop; the command counts as the driver, its child as another."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    command = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    tree = ProcessTree(command.pid, {"Sampler": "sample"}, "Ray")
    try:
        # a child that has not begun its program holds its parent, which then cannot stop
        wait_for(lambda: tree.spent({}, tree.cpu_seconds()).get("Ray", 0.0) > 0.3)
        tree.stop()
        wait_for(lambda: states(command.pid) == {psutil.STATUS_STOPPED})
        before = tree.cpu_seconds()
        assert tree.spent(before, tree.cpu_seconds()) == {"driver": 0.0, "Ray": 0.0}
        tree.go_on()
        wait_for(lambda: psutil.STATUS_STOPPED not in states(command.pid))
        wait_for(lambda: tree.spent(before, tree.cpu_seconds())["Ray"] > 0.05)
    finally:
        tree.kill()
        command.wait()


def test_company_computes_until_the_turns_are_over():
    with company(2):
        busy = [one for one in psutil.Process().children() if one.cmdline()[-1:] == ["while True: pass"]]
        wait_for(lambda: all(one.cpu_times().user > 0.05 for one in busy))
    assert len(busy) == 2 and not any(one.is_running() for one in busy)


def states(pid):
    process = psutil.Process(pid)
    return {one.status() for one in (process, *process.children(recursive=True))}


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_the_script_measures_a_small_step(tmp_path):
    """All sides, with every stage of each, and no process left behind."""
    file = tmp_path / "bench.json"
    small = ["rollout.prompts_per_step=2", "rollout.group_size=4", "rollout.num_diffusion_steps=1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small, "--repeats", "1", "--json", str(file)], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    report = json.loads(file.read_text())
    assert report["sides"].keys() == {OURS, PLAIN, RELEASED} and report["images"] == 8
    for name, side in report["sides"].items():
        assert side["seconds"] > 0 and side["cpu_seconds"] > 0
        assert {"sample", "decode", "score", "learn"} <= side["stages"].keys()
        assert all(side["stages"][stage]["cpu_ms_per_image"] > 0 for stage in ("sample", "decode", "score", "learn"))
        assert ("driver" in side["stages"]) == (name == OURS)
    assert report["settings"][PLAIN]["num_diffusion_steps"] == 1 != report["settings"][RELEASED]["num_diffusion_steps"]
    assert "at equal settings our step is" in " ".join(done.stdout.split())
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if "blip3o-bench-" in " ".join(one.info["cmdline"] or [])
    ]
