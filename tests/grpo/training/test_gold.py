"""Gold at work inside the trainer: it rises, turns round while the reward goes on, and the run ends there."""

import json
import shutil
from dataclasses import replace

import pytest
from transformers import TrainerControl, TrainerState

from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.evaluation import gold_watch
from blip3o_grpo.evaluation.gold_watch import GoldWatch, judge_last
from blip3o_grpo.evaluation.heldout import Evaluation, evaluate
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rank import run_training
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import read_manifest
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.run.rollback import rolled_back
from blip3o_grpo.training.guard_rules import GuardError

PEAK = 0.65


def gold_of(share):
    """Highest where the share of low tokens, which is trained on, is `PEAK`."""
    return 1 - abs(share - PEAK)


@pytest.fixture(scope="module")
def train(make_config, fake_pipeline, prompts, policy_path):
    """Trains on `target`, with `gold` of weight 0 beside it; returns configuration, folder and what stopped it."""

    def run(config=None, **guards):
        config = config or make_config(
            rewards=[{"name": "target"}, {"name": "gold", "type": "target", "weight": 0}],
            trainer={"max_steps": 24, "learning_rate": 4e-3, "beta": 0},
            evaluation={"every_steps": 2, "grid_prompts": 3},
            checkpoint={"every_steps": 100, "keep": 1},
            guards={"gold": ["gold"], **guards},
        )
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        pipeline = fake_pipeline(config)
        collect = pipeline.collect
        pipeline.collect = lambda *args, **options: with_gold(collect(*args, **options))
        if not (folder.evaluations / "before.json").is_file():
            pipeline.sync_weights(BLIP3oNext.from_pretrained(policy_path, parts=("ar",)).ar.state_dict(), version=0)
            evaluate(pipeline, prompts, config, name="before", step=0, folder=folder)
        try:
            run_training(config, prompts, prompts, pipeline)
        except GuardError as error:
            return config, folder, error
        return config, folder, None

    return run


@pytest.fixture(scope="module")
def stopped(train):
    """A run that gold stopped."""
    return train()


def with_gold(batch):
    groups = []
    for group in batch.groups:
        rollouts = [
            replace(rollout, rewards=rollout.rewards | {"gold": gold_of(rollout.rewards["target"])})
            for rollout in group.rollouts
        ]
        groups.append(replace(group, rollouts=tuple(rollouts)))
    return replace(batch, groups=tuple(groups))


def means(folder):
    """Held-out gold by step, the start as 0."""
    found = {0: Evaluation.load(folder.evaluations / "before.json").means["gold"]}
    return found | {
        line["step"]: line["heldout/gold"] for line in read_metrics(folder.metrics) if "heldout/gold" in line
    }


def test_a_run_stops_where_gold_turns_round_and_keeps_its_best_checkpoint(train, stopped):
    config, folder, error = stopped
    gold = means(folder)
    last, best = max(gold), max(gold, key=gold.get)
    assert 0 < best < last < 24
    assert str(error).startswith(f"step {last}: gold reward 'gold' fell from {gold[best]:.3f} after step {best} to ")
    assert f"best by gold: {folder.checkpoints / f'checkpoint-{best}'} (guards.gold_fall=rollback" in str(error)
    kept = {path.name: path for path in folder.checkpoints.glob("checkpoint-*")}
    assert set(kept) == {f"checkpoint-{best}", f"checkpoint-{last - 2}"}
    assert read_manifest(kept[f"checkpoint-{best}"]).score == gold[best] > gold[last]

    evidence = folder.failures / f"guard-step-{last}"
    saved = json.loads(read_text(evidence / "gold" / "gold.json"))
    assert (saved["step"], saved["best"], saved["reward"]) == (last, best, "gold")
    assert saved["reason"] in str(error) and saved["change"]["high"] < 0 < saved["trained"]["low"]
    assert {int(step): values["gold"] for step, values in saved["means"].items()} == gold
    assert list(saved["change_by_prompt"].values()) == sorted(saved["change_by_prompt"].values())
    assert (evidence / "gold" / "pictures.png").stat().st_size > 1000
    assert len(read_text(evidence / "rank-0" / "rollouts.jsonl").splitlines()) == 8

    _, _, again = train(config)
    assert str(again) == str(error)  # from its newest checkpoint it comes to the same


def test_a_run_that_is_rolled_back_ends_with_its_best_checkpoint(train):
    config, folder, error = train(gold_fall="rollback")
    gold = means(folder)
    last, best = max(gold), max(gold, key=gold.get)
    assert error is None and 0 < best < last < 24
    assert folder.newest_step() == best
    assert [path.name for path in folder.checkpoints.glob("checkpoint-*")] == [f"checkpoint-{best}"]
    assert rolled_back(folder, config)["after"] == last
    assert read_metrics(folder.metrics)[-1]["step"] == last


def test_what_is_measured_after_the_last_step_is_judged_too(stopped, make_config, tmp_path):
    config, there, error = stopped
    last = max(means(there))
    folder = RunFolder(shutil.copytree(there.path, tmp_path / "run"))
    for name in (f"step-{last}.json", f"step-{last}-images"):
        (folder.evaluations / name).rename(folder.evaluations / name.replace(f"step-{last}", "after"))
    shorter = config.model_copy(update={"trainer": config.trainer.model_copy(update={"max_steps": last})})
    with pytest.raises(GuardError) as caught:
        judge_last(folder, shorter, print)
    assert str(caught.value) == str(error).replace(str(there.path), str(folder.path))
    told = []
    guards = shorter.guards.model_copy(update={"gold_fall": "rollback"})
    rolling = shorter.model_copy(update={"guards": guards})
    assert judge_last(folder, rolling, told.append)
    assert told[0].startswith(f"step {last}: gold reward 'gold' fell") and "the run ends with the best by" in told[0]
    assert (folder.evaluations / f"step-{last}.json").is_file() and rolled_back(folder, rolling)
    assert not judge_last(folder, rolling, told.append) and len(told) == 1
    assert not judge_last(folder, make_config(), told.append)


def test_all_ranks_end_together_and_none_writes_a_checkpoint_of_the_fall(make_config, tmp_path, monkeypatch):
    config = make_config(
        rewards=[{"name": "target"}, {"name": "gold", "type": "target", "weight": 0}],
        evaluation={"every_steps": 2},
        guards={"gold": ["gold"]},
    )
    found = []
    monkeypatch.setattr(gold_watch, "judge", lambda *_: found[-1])
    shared = []

    def any_rank(value):
        shared.append(value)
        return any(shared)

    main, other = (
        GoldWatch(config, RunFolder(tmp_path), any_rank=any_rank, save_rollouts=None, tell=None) for _ in range(2)
    )
    for fall in (None, object()):
        found.append(fall)
        for watch, rank_0 in ((main, True), (other, False)):
            control = TrainerControl()
            watch.on_step_end(None, TrainerState(global_step=2, is_world_process_zero=rank_0), control)
            assert control.should_save == (fall is None) and control.should_training_stop == (fall is not None)
    control = TrainerControl()
    for step in (1, 4):  # not evaluated; evaluated when training is over
        main.on_step_end(None, TrainerState(global_step=step, is_world_process_zero=True), control)
    assert not control.should_save and len(shared) == 4
