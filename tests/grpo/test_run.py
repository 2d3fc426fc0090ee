"""Whole runs with everything real: Ray, vLLM, diffusers, Ray Train, TRL. One set of workers serves all runs here."""

import io
import json
import logging
import os
import signal
import threading
import time

import pytest
import ray
import torch
from rich.console import Console
from safetensors.torch import load_file

import blip3o_grpo.driver
from blip3o_grpo.api import train
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.report import write_report
from blip3o_grpo.rollout import RolloutError, RolloutPipeline, read_rollouts
from blip3o_grpo.run.environment import ENVIRONMENT
from blip3o_grpo.run.files import read_object
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.locks import RunFolderInUseError, hold, holder_pid
from blip3o_grpo.run.manifest import read_manifest
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.stopping import RunStopped
from blip3o_grpo.training.schedule import prompt_schedule

REWARD = """
from pathlib import Path

class Redness:
    '''Share of red light, 0..1; raises for the prompt that the file `fault` names, while there is one.'''

    def __init__(self, fault):
        self.fault = Path(fault)

    def __call__(self, batch):
        if self.fault.exists() and self.fault.read_text() in batch.prompts:
            raise OSError("the reward's server is gone")
        return [float(image[..., 0].mean() / (image.mean() * 3 + 1)) for image in batch.images]
"""


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    return tmp_path_factory.mktemp("fault") / "fault"


@pytest.fixture(scope="module")
def configure(make_config, fault, prompt_file):
    heldout = prompt_file.with_name("heldout.txt")
    heldout.write_text("".join(f'a blue sign that says "{word}"\n' for word in ("ZOO", "CITY", "MENU", "RAIL")))

    def configure_run():
        return make_config(
            rewards=[
                {"name": "redness", "type": "red_reward:Redness", "options": {"fault": str(fault)}},
                {"name": "guard", "type": "reference_guard", "weight": 0.3},
            ],
            rollout={"num_diffusion_steps": 2, "record_every_steps": 1, "prompts_per_chunk": 2},
            prompts={"train": str(prompt_file), "heldout": str(heldout)},
            trainer={"max_steps": 3, "learning_rate": 1e-3, "beta": 0.01},
            evaluation={"num_prompts": 4, "images_per_prompt": 2, "grid_prompts": 2},
            checkpoint={"every_steps": 1, "keep": 2},
            report_to=["tensorboard"],
        )

    return configure_run


@pytest.fixture(scope="module")
def workers(configure, policy_path, tmp_path_factory):
    """A local Ray cluster and one launched pipeline, which every run of this module gets."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "red_reward.py").write_text(REWARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": str(folder)}},
        )
        pipeline = RolloutPipeline.launch(configure(), policy_path)

        class Launched:
            """In the place of `RolloutPipeline`: launches nothing, closes nothing."""

            @staticmethod
            def launch(config, path):
                return pipeline

        patch.setattr(blip3o_grpo.driver, "RolloutPipeline", Launched)
        patch.setattr(RolloutPipeline, "close", lambda self: None)
        yield pipeline
        ray.shutdown()


@pytest.fixture(scope="module")
def whole(workers, configure):
    """An uninterrupted run: its folder and its result."""
    config = configure()
    result = train(config)
    return RunFolder(config.run_dir), result


def test_a_run_writes_its_summary_and_its_sampler_agrees_with_its_trainer(whole):
    folder, result = whole
    summary = json.loads(folder.summary.read_text())
    assert summary["heldout"]["before"] == result.before.means and summary["heldout"]["after"] == result.after.means
    assert summary["heldout"]["estimates"]["after"]["redness"]["mean"] == result.after.means["redness"]
    change = summary["heldout"]["change"]
    assert {name: (row["mean"], row["n"]) for name, row in change.items()} == {
        name: (pytest.approx(value - result.before.means[name]), 4) for name, value in result.after.means.items()
    }
    assert set(summary) == {"heldout", "steps", "seconds", "peak_memory_gb", "mismatch_max", "versions"}
    assert set(summary["heldout"]["before"]) == set(summary["heldout"]["after"]) == {"redness", "guard"}
    assert summary["steps"] == 3
    assert 0 < summary["mismatch_max"] < 1e-4
    assert 0.1 < summary["peak_memory_gb"] < 12
    assert {"torch", "transformers", "trl", "ray", "diffusers"} <= set(summary["versions"])
    assert all(getattr(result, key) == value for key, value in summary.items() if key != "heldout")
    assert (result.run_dir, result.policy, result.summary) == (folder.path, folder.policy, folder.summary)
    assert all(picture.is_file() for picture in result.pictures)


def test_a_run_leaves_metrics_pictures_rollouts_and_a_loadable_policy(whole):
    folder, _ = whole
    metrics = read_metrics(folder.metrics)
    assert [line["step"] for line in metrics] == [1, 2, 3]
    timed = {"time/sample", "time/decode", "time/score", "time/train"}
    assert {"reward/mean", "reward/redness", "reward/guard", "kl/mismatch", *timed} <= metrics[0].keys()
    assert all(metrics[0][name] > 0 for name in timed)
    for file in (
        "grids/before.png",
        "grids/after.png",
        "evaluations/before.json",
        "rollouts/step-000003/rollouts.jsonl",
    ):
        assert (folder.path / file).stat().st_size > 0
    assert list(folder.tensorboard.iterdir())
    assert [start["step"] for start in read_object(folder.environment, ENVIRONMENT)["starts"]] == [0]
    kept = {path.name for path in folder.checkpoints.glob("checkpoint-*")}
    assert {"checkpoint-2", "checkpoint-3"} <= kept and len(kept) <= 3  # the best may be the first
    trained = BLIP3oNext.from_pretrained(folder.policy)
    weights = load_file(folder.newest_checkpoint() / "model.safetensors")
    assert torch.equal(trained.ar.lm_head.weight, weights["lm_head.weight"])


def test_a_run_that_a_reward_stopped_resumes_to_the_same_end(whole, configure, fault, prompts):
    uninterrupted, whole_result = whole
    config = configure()
    folder = RunFolder(config.run_dir)
    schedule = prompt_schedule(len(prompts), config.rollout.prompts_per_step, 3, config.seed)
    fault.write_text(prompts[schedule[-1]].text)  # of the last step

    output = io.StringIO()
    with pytest.raises(RolloutError) as caught:
        train(config, Console(file=output, width=200))
    assert "restarting" not in output.getvalue()  # an error for the user is not tried again
    assert all(
        part in str(caught.value) for part in ("redness", prompts[schedule[-1]].text, "the reward's server is gone")
    )
    assert folder.newest_step() == 2
    assert not folder.summary.exists()
    before = (folder.evaluations / "before.json").stat().st_mtime_ns

    fault.unlink()
    result = train(config)
    assert (folder.evaluations / "before.json").stat().st_mtime_ns == before  # taken over, not repeated
    assert result.before.means == whole_result.before.means
    for name, value in whole_result.after.means.items():
        assert result.after.means[name] == pytest.approx(value, abs=1e-4)
    assert_same_metrics(folder, uninterrupted)
    assert [start["step"] for start in read_object(folder.environment, ENVIRONMENT)["starts"]] == [0, 2]
    text = write_report(folder.path).read_text()
    assert "Started again" in text and ">resumed</text>" in text


def assert_same_metrics(folder, expected):
    """Every step once, with the other run's values within 1e-4, times apart; the same rollouts recorded."""
    ours, theirs = read_metrics(folder.metrics), read_metrics(expected.metrics)
    assert [line["step"] for line in ours] == [1, 2, 3]
    for line, other in zip(ours, theirs, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            if not name.startswith("time/"):
                assert line[name] == pytest.approx(other[name], abs=1e-4), name
    recorded, others = read_rollouts(folder.path), read_rollouts(expected.path)
    assert [(r["step"], r["prompt_id"]) for r in recorded] == [(r["step"], r["prompt_id"]) for r in others]
    for record, other in zip(recorded, others, strict=True):
        assert [r["seed"] for r in record["rollouts"]] == [r["seed"] for r in other["rollouts"]]


def act_after_the_first_step(folder, act):
    """A thread that calls `act` once the run has logged its first step."""

    def wait():
        while not read_metrics(folder.metrics):
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_finished_run_goes_on_and_is_then_what_a_longer_one_would_have_been(workers, configure):
    """Two steps and a third, with an evaluation at the second, against three: metrics, checkpoints, policy, summary."""

    def of(config, steps):
        trainer = config.trainer.model_copy(update={"max_steps": steps, "epsilon": 0.3})
        evaluation = config.evaluation.model_copy(update={"every_steps": 2})
        return config.model_copy(update={"trainer": trainer, "evaluation": evaluation})

    whole, parts = configure(), configure()
    expected, output = train(of(whole, 3)), io.StringIO()
    shorter = train(of(parts, 2), Console(file=output, width=200))
    assert "trainer.epsilon=0.3 changes nothing" in output.getvalue()
    folder, other = RunFolder(parts.run_dir), RunFolder(whole.run_dir)
    assert (shorter.steps, folder.newest_step()) == (2, 2)
    with pytest.raises(ConfigError, match="2 steps are done; give 2 or more"):
        train(of(parts, 1))
    found = train(of(parts, 3))
    assert_same_metrics(folder, other)
    assert "heldout/redness" in read_metrics(folder.metrics)[1]
    assert found.steps == json.loads(folder.summary.read_text())["steps"] == 3
    for ours, theirs in ((found.after, expected.after), (found.before, expected.before)):
        assert ours.step == theirs.step and ours.means == pytest.approx(theirs.means, abs=1e-4)
    for name in ("step-2", "after"):
        assert Evaluation.load(folder.evaluations / f"{name}.json").means == pytest.approx(
            Evaluation.load(other.evaluations / f"{name}.json").means, abs=1e-4
        )
    assert {path.name for path in folder.evaluations.iterdir()} == {path.name for path in other.evaluations.iterdir()}
    assert {path.name for path in folder.grids.iterdir()} == {path.name for path in other.grids.iterdir()}
    for checkpoint in other.checkpoints.glob("checkpoint-*"):
        score = read_manifest(checkpoint).score
        assert read_manifest(folder.checkpoints / checkpoint.name).score == pytest.approx(score, abs=1e-4)
    weights, others = (load_file(path / "model.safetensors") for path in (folder.policy, other.policy))
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-5, rtol=0, msg=name)
    assert train(of(parts, 3)) == found  # at once


@pytest.mark.slow
def test_a_killed_trainer_is_started_again_and_ends_like_an_undisturbed_one(whole, configure):
    config = configure()
    folder = RunFolder(config.run_dir)
    output = io.StringIO()
    act_after_the_first_step(folder, lambda: os.kill(holder_pid(folder.trainer_lock), signal.SIGKILL))
    train(config, Console(file=output, width=200))
    assert "trainer rank 0 failed" in output.getvalue()
    assert_same_metrics(folder, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_with_a_checkpoint_and_the_same_call_resumes(whole, configure, number):
    config = configure()
    folder = RunFolder(config.run_dir)
    act_after_the_first_step(folder, lambda: os.kill(os.getpid(), number))
    with pytest.raises(RunStopped) as stopped:
        train(config)
    assert stopped.value.exit_code == 128 + number
    steps = len(read_metrics(folder.metrics))
    assert 1 <= steps == folder.newest_step() < 3
    assert not folder.stop.exists() and not folder.summary.exists()
    train(config)
    assert_same_metrics(folder, whole[0])


def test_a_second_driver_on_the_same_folder_is_refused(workers, configure):
    config = configure()
    with (
        hold(RunFolder(config.run_dir).lock),
        pytest.raises(RunFolderInUseError, match=f"in use by process {os.getpid()} on "),
    ):
        train(config)
