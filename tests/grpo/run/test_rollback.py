"""A run that was rolled back ends with an earlier checkpoint, stays so, and goes on where its guards say so."""

import json

import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.reopened import reopen
from blip3o_grpo.result import finished_result
from blip3o_grpo.run.files import RunFileError
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.manifest import read_manifest
from blip3o_grpo.run.metrics import append_metrics
from blip3o_grpo.run.rollback import has_steps_left, rescore_checkpoints, roll_back, rolled_back

MEANS = {"bright": 0.5, "ocr": 0.6}


@pytest.fixture
def make(tmp_path):
    """The configuration of a run of 8 steps, evaluated every 2, with these guards."""

    def build(**guards):
        return RunConfig.model_validate(
            {
                "run_dir": str(tmp_path / "run"),
                "prompts": {"train": str(tmp_path / "train.txt"), "heldout": str(tmp_path / "heldout.txt")},
                "rewards": [{"name": "bright"}, {"name": "ocr", "weight": 0}],
                "trainer": {"max_steps": 8},
                "evaluation": {"every_steps": 2},
                "guards": guards,
            }
        )

    return build


@pytest.fixture
def config(make):
    return make(gold=["ocr"], gold_fall="rollback")


@pytest.fixture
def folder(config):
    """A run that has done 6 steps."""
    run = RunFolder(config.run_dir)
    run.prepare(config)
    for step in (2, 4, 6):
        append_metrics(run.metrics, step, {"heldout/bright": step / 10, "heldout/ocr": 1 - step / 10})
        (run.staging / f"checkpoint-{step}").mkdir(parents=True)
        (run.staging / f"checkpoint-{step}" / "model.safetensors").write_text(f"weights {step}")
        finish_checkpoint(run.staging, step, keep=3, score=1 - step / 10)
    return run


def finish(folder, step):
    """What the driver writes at the end."""
    folder.policy.mkdir()
    (folder.policy / "config.json").write_text("{}")
    for name, at in (("before", 0), ("after", step)):
        Evaluation(at, 2, 1, MEANS, dict.fromkeys(MEANS), {}).save(folder.evaluations / f"{name}.json")
    numbers = {"steps": step, "seconds": 1.0, "peak_memory_gb": 1.0}
    folder.summary.write_text(json.dumps(numbers))


def test_later_checkpoints_go_and_the_run_is_over(folder, config):
    assert has_steps_left(folder, config)
    roll_back(folder, 2, 6, "gold fell")
    assert folder.newest_step() == 2
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [".incomplete", "checkpoint-2"]
    assert rolled_back(folder, config) == {"step": 2, "after": 6, "reason": "gold fell"}
    assert not has_steps_left(folder, config)
    assert finished_result(config) is None  # the policy is not saved yet
    finish(folder, 2)
    assert finished_result(config).steps == 2
    reopen(folder, config)
    assert folder.summary.is_file() and (folder.evaluations / "after.json").is_file()


def test_a_run_may_be_rolled_back_to_its_start(folder, config):
    roll_back(folder, 0, 6, "gold fell")
    finish(folder, 0)
    assert folder.newest_step() == 0 and finished_result(config).steps == 0


@pytest.mark.parametrize("guards", [{}, {"gold": ["ocr"]}])
@pytest.mark.parametrize("step", [0, 2])
def test_it_goes_on_where_the_guards_no_longer_ask_for_it(folder, config, make, guards, step):
    roll_back(folder, step, 6, "gold fell")
    finish(folder, step)
    changed = make(**guards)
    assert finished_result(changed) is None
    folder.check(changed)
    reopen(folder, changed)
    assert has_steps_left(folder, changed) and not folder.rollback.exists() and not folder.summary.exists()
    assert has_steps_left(folder, config)


def test_a_kill_between_the_checkpoints_leaves_a_run_that_goes_on(folder, config, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("blip3o_grpo.run.rollback.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(folder, 2, 6, "gold fell")
    assert folder.newest_step() == 2 and has_steps_left(folder, config)


def test_a_damaged_file_is_named(folder, config):
    folder.rollback.write_text('{"step": 6}')
    with pytest.raises(RunFileError, match=r"rolled_back.json: 'after' is required"):
        rolled_back(folder, config)


def test_the_best_checkpoints_are_those_by_the_measure_that_the_guards_name_now(folder, config, make):
    scores = {2: 0.8, 4: 0.6, 6: 0.4}
    rescore_checkpoints(folder, config)
    assert {step: score(folder, step) for step in scores} == pytest.approx(scores)
    rescore_checkpoints(folder, make())
    assert {step: score(folder, step) for step in scores} == pytest.approx({2: 0.2, 4: 0.4, 6: 0.6})
    rescore_checkpoints(folder, config)
    assert {step: score(folder, step) for step in scores} == pytest.approx(scores)


def score(folder, step):
    return read_manifest(folder.checkpoints / f"checkpoint-{step}").score
