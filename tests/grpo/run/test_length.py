"""Other `max_steps` on a run folder: allowed where the steps that are done would have been the same."""

import pytest

from blip3o_grpo.configs import ConfigError, RunConfig, WarmstartConfig
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.length import other_warmstart_length

GOES_ON = ("constant", "constant_with_warmup")
LAID_OUT = ("linear", "cosine")


@pytest.fixture
def run_of(tmp_path):
    """A run of 6 steps that has done so many of them, and its configuration with other values of `trainer`."""

    def build(schedule, done, finished=False, **sections):
        config = RunConfig.model_validate(
            {
                "run_dir": str(tmp_path / "run"),
                "prompts": {"train": str(tmp_path / "train.txt"), "heldout": str(tmp_path / "heldout.txt")},
                "rewards": [{"name": "ocr"}],
                "trainer": {"max_steps": 6, "lr_scheduler_type": schedule, "warmup_steps": 2},
                **sections,
            }
        )
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        if done:
            (folder.staging / f"checkpoint-{done}").mkdir(parents=True)
            (folder.staging / f"checkpoint-{done}" / "model.safetensors").write_text("weights")
            finish_checkpoint(folder.staging, done, keep=3)
        if finished:
            folder.policy.mkdir()

        def other(**values):
            return config.model_copy(update={"trainer": config.trainer.model_copy(update=values)})

        return folder, other

    return build


def refusal(folder, config):
    with pytest.raises(ConfigError) as refused:
        folder.check(config)
    return str(refused.value)


@pytest.mark.parametrize("schedule", GOES_ON)
@pytest.mark.parametrize(("done", "finished"), [(6, True), (6, False), (4, False)])
def test_a_constant_learning_rate_goes_on_and_may_end_earlier_but_not_before_what_is_done(
    run_of, schedule, done, finished
):
    folder, other = run_of(schedule, done, finished)
    for steps in (done, 6, 7, 100):
        folder.check(other(max_steps=steps))
    said = f"{folder.path}: trainer.max_steps cannot be another one now: {done} steps are done; give {done} or more"
    assert refusal(folder, other(max_steps=done - 1)) == said


@pytest.mark.parametrize(("done", "goes_on"), [(6, False), (4, True)])
def test_the_last_step_of_a_run_that_draws_ahead_has_drawn_nothing_for_a_longer_one(run_of, done, goes_on):
    folder, other = run_of("constant", done, rollout={"max_staleness": 1})
    if goes_on:
        folder.check(other(max_steps=7))
    else:
        assert refusal(folder, other(max_steps=7)).endswith(
            "now: with rollout.max_staleness=1 its last step would have drawn the next one's; give another run_dir"
        )


@pytest.mark.parametrize("schedule", LAID_OUT)
@pytest.mark.parametrize(("done", "finished"), [(6, True), (4, False)])
def test_a_learning_rate_that_ends_with_the_run_does_not(run_of, schedule, done, finished):
    folder, other = run_of(schedule, done, finished)
    folder.check(other(max_steps=6))
    for steps in (3, 5, 7):
        said = refusal(folder, other(max_steps=steps))
        assert (
            f"the {schedule} learning rate was laid out for 6 steps" in said and "; give 6, or another run_dir" in said
        )


@pytest.mark.parametrize("schedule", [*GOES_ON, *LAID_OUT])
def test_a_run_that_has_done_nothing_may_have_any_length(run_of, schedule):
    folder, other = run_of(schedule, 0)
    for steps in (1, 6, 9):
        folder.check(other(max_steps=steps))


def test_a_finished_run_without_checkpoints_is_not_started_over(run_of):
    folder, other = run_of("constant", 0, finished=True)
    said = refusal(folder, other(max_steps=9))
    assert said.endswith(": the checkpoints of its steps are gone; give another run_dir")


def test_other_keys_are_refused_as_ever_beside_the_length(run_of):
    folder, other = run_of("constant", 4)
    assert "differs in trainer.max_steps, trainer.beta" in refusal(folder, other(max_steps=9, beta=0.5))
    assert "differs in trainer.lr_scheduler_type" in refusal(folder, other(lr_scheduler_type="cosine"))


def test_a_warm_start_is_a_cosine_always():
    known, asked = (WarmstartConfig(run_dir="run", images="x", captions="y", max_steps=steps) for steps in (6, 9))
    assert other_warmstart_length(known, asked, 4) == (
        "the cosine learning rate was laid out for 6 steps, so those done would have been others; give 6, or another "
        "run_dir (a new warm start can begin with this one's result: policy.path=RUN/policy)"
    )
