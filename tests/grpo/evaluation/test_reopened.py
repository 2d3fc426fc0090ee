"""A finished run that is to be longer is left as a run that was meant to be so: nothing measured is lost or doubled."""

import json

import pytest

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.reopened import reopen
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.manifest import fault, read_manifest
from blip3o_grpo.run.metrics import append_metrics, read_metrics


@pytest.fixture
def finished(tmp_path):
    """A finished run of 6 steps, evaluated every so many."""

    def build(every):
        config = RunConfig.model_validate(
            {
                "run_dir": str(tmp_path / "run"),
                "prompts": {"train": str(tmp_path / "train.txt"), "heldout": str(tmp_path / "heldout.txt")},
                "rewards": [{"name": "ocr", "weight": 2.0}, {"name": "guard", "weight": 0}],
                "trainer": {"max_steps": 6},
                "evaluation": {"every_steps": every},
            }
        )
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        for step in range(1, 7):
            append_metrics(folder.metrics, step, {"reward/mean": step / 10})
        (folder.staging / "checkpoint-6").mkdir(parents=True)
        (folder.staging / "checkpoint-6" / "model.safetensors").write_text("weights")
        finish_checkpoint(folder.staging, 6, keep=2)
        for name in ("evaluations/after-images", "grids", "policy"):
            (folder.path / name).mkdir(parents=True)
        (folder.evaluations / "after-images" / "000-0.png").write_bytes(b"picture")
        (folder.grids / "after.png").write_bytes(b"grid")
        means = {"ocr": 0.75, "guard": 0.5}
        Evaluation(6, 2, 1, means, dict.fromkeys(means), {}).save(folder.evaluations / "after.json")
        folder.summary.write_text("{}")
        longer = config.model_copy(update={"trainer": config.trainer.model_copy(update={"max_steps": 9})})
        return folder, config, longer

    return build


def names(folder):
    return sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("every", [0, 3, 4])
def test_what_was_measured_after_the_last_step_becomes_that_steps(finished, every):
    folder, _, longer = finished(every)
    lines = read_metrics(folder.metrics)
    for _ in range(2):  # a second time, nothing changes
        reopen(folder, longer)
        assert Evaluation.load(folder.evaluations / "step-6.json").means == {"ocr": 0.75, "guard": 0.5}
        assert (folder.evaluations / "step-6-images" / "000-0.png").read_bytes() == b"picture"
        assert (folder.grids / "step-6.png").read_bytes() == b"grid"
        assert not [name for name in names(folder) if "after" in name] and not folder.summary.exists()
        assert folder.policy.is_dir() and not fault(folder.newest_checkpoint(), 6, full=True)
        due = every == 3
        measured = {"heldout/ocr": 0.75, "heldout/guard": 0.5} if due else {}
        assert read_metrics(folder.metrics) == [*lines[:-1], lines[-1] | measured]
        assert read_manifest(folder.newest_checkpoint()).score == (1.5 if due else None)


def test_a_kill_in_between_is_made_good_by_the_next_call(finished, monkeypatch):
    folder, _, longer = finished(3)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("blip3o_grpo.evaluation.reopened.set_score", killed)
        with pytest.raises(KeyboardInterrupt):
            reopen(folder, longer)
    reopen(folder, longer)
    assert read_manifest(folder.newest_checkpoint()).score == 1.5
    assert read_metrics(folder.metrics)[-1] == {
        "step": 6,
        "reward/mean": 0.6,
        "heldout/ocr": 0.75,
        "heldout/guard": 0.5,
    }
    assert (folder.evaluations / "step-6.json").is_file()


def test_a_run_that_has_no_more_steps_to_do_stays_as_it_is(finished):
    folder, config, _ = finished(3)
    before = {name: (folder.path / name).read_bytes() for name in names(folder)}
    reopen(folder, config)
    assert {name: (folder.path / name).read_bytes() for name in names(folder)} == before


def test_an_evaluation_of_another_step_is_left_to_be_replaced(finished):
    folder, _, longer = finished(3)
    values = json.loads((folder.evaluations / "after.json").read_text()) | {"step": 5}
    (folder.evaluations / "after.json").write_text(json.dumps(values))
    reopen(folder, longer)
    assert (folder.evaluations / "after.json").is_file() and not (folder.evaluations / "step-6.json").exists()
