"""Step N is what N optimiser steps have led to, wherever it is written: one small run's folder, read from all sides."""

import json
import re
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from blip3o_grpo.rank import run_training
from blip3o_grpo.report import write_report
from blip3o_grpo.rollout import read_rollouts
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics

STEPS = [1, 2, 3]


@pytest.fixture(scope="module")
def run(make_config, fake_pipeline, prompts):
    """Three steps with everything that has a step number, and what the terminal was told."""
    config = make_config(
        rollout={"record_every_steps": 1, "prompts_per_step": 4},
        trainer={"max_steps": 3},
        evaluation={"every_steps": 1, "images_per_prompt": 2, "num_prompts": 4, "grid_prompts": 2},
        checkpoint={"every_steps": 1, "keep": 3},
        report_to=["tensorboard"],
    )
    folder, told = RunFolder(config.run_dir), []
    folder.prepare(config)
    run_training(config, prompts, prompts, fake_pipeline(config), SimpleNamespace(put=told.append))
    return folder, told


def test_all_files_of_a_run_count_its_steps_alike(run):
    """Metrics, TensorBoard, rollouts, checkpoints and evaluations, and the weights that each of them speaks of."""
    folder, _ = run
    metrics = read_metrics(folder.metrics)
    assert [line["step"] for line in metrics] == STEPS
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    for name in ("reward/mean", "heldout/target"):
        shown = events.Scalars(f"train/{name}")
        expected = [line[name] for line in metrics if name in line]
        assert [event.step for event in shown] == STEPS[: len(expected)]
        assert [event.value for event in shown] == pytest.approx(expected)
    assert [path.name for path in sorted(folder.path.glob("rollouts/*"))] == [f"step-{step:06d}" for step in STEPS]
    records = read_rollouts(folder.path)
    assert {(record["step"], record["policy_version"]) for record in records} == {(1, 0), (2, 1), (3, 2)}
    for line in metrics:  # the metrics of a step are those of the rollouts under its number
        scores = [
            r["rewards"]["target"] for record in records if record["step"] == line["step"] for r in record["rollouts"]
        ]
        assert sum(scores) / len(scores) == pytest.approx(line["reward/target"], abs=1e-6)
    states = {
        path.name: json.loads((path / "trainer_state.json").read_text())
        for path in folder.checkpoints.glob("checkpoint-*")
    }
    assert {name: state["global_step"] for name, state in states.items()} == {f"checkpoint-{n}": n for n in STEPS}
    for step in (1, 2):  # of the last one, the driver's `after` is the evaluation
        evaluation = json.loads((folder.evaluations / f"step-{step}.json").read_text())
        assert evaluation["step"] == step
        assert evaluation["means"]["target"] == metrics[step - 1]["heldout/target"]


def test_the_terminal_and_the_report_count_as_the_files_do(run):
    folder, told = run
    assert [message["step"] for message in told if "step" in message] == STEPS
    assert [message["evaluation"].step for message in told if "evaluation" in message] == [1, 2]
    assert [message["evaluating"] for message in told if message.get("done") == 4] == [1, 2]
    page = write_report(folder.path).read_text()
    assert [int(step) for step in re.findall(r"<h3>Step (\d+) ", page)] == STEPS
    assert "3 of 3" in page


def test_every_mean_of_a_step_has_its_interval_and_n(run):
    """Training steps over their four prompts, held-out scores over theirs; they hold the mean."""
    for line in read_metrics(run[0].metrics):
        for name in [name for name in line if name in ("reward/mean", "reward/target", "heldout/target")]:
            low, high, n = (line[f"interval/{name}/{key}"] for key in ("low", "high", "n"))
            assert low <= line[name] <= high and n == 4, name
