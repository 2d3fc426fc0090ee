"""What of the rollouts is learnt from: subsets of groups, other groups in place of dull ones, and groups of before."""

import itertools
import json

import numpy as np
import pytest
import torch

from blip3o_grpo.configs.saving import DynamicSamplingSection, ReplaySection
from blip3o_grpo.rollout import (
    Completion,
    Discarded,
    Prompt,
    Rollout,
    RolloutBatch,
    RolloutError,
    RolloutGroup,
    read_rollouts,
)
from blip3o_grpo.rollout.batch_file import load_batch, save_batch
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.mismatch import replay_weights
from blip3o_grpo.training.replay import Replay
from blip3o_grpo.training.selection import completion_rewards, differs, spread, spread_subset
from blip3o_grpo.training.step_metrics import totals
from blip3o_grpo.training.trainer import ImageGRPOTrainer


def group(name, scores, version=0, reward="target"):
    rollouts = tuple(
        Rollout(
            Completion(np.arange(3), np.zeros(3, np.float32), version, seed), np.zeros((2, 2, 3), np.uint8), {reward: s}
        )
        for seed, s in enumerate(scores)
    )
    return RolloutGroup(Prompt(name, f"a sign {name}"), [7], rollouts)


# Subsets


def test_a_subset_has_the_largest_variance_of_all_choices():
    generator = np.random.default_rng(0)
    for _ in range(50):
        totals = generator.choice([0, 0.2, 0.5, 1.0], size=7) + (generator.random(7) if _ % 2 else 0)
        for size in (2, 3, 4, 6):
            best = max(np.var(totals[list(choice)]) for choice in itertools.combinations(range(7), size))
            assert np.var(totals[spread_subset(totals, size)]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("totals", "size", "members"),
    [
        ([0, 1, 0.5, 0.4], 2, [0, 1]),
        ([0, 0, 0, 1, 0, 1], 4, [0, 1, 3, 5]),
        ([0, 0, 0, 0, 0, 1], 4, [0, 1, 4, 5]),
        ([0.3] * 5, 2, [0, 4]),
        ([np.nan] * 4, 2, [0, 1]),
    ],
)
def test_a_subset_by_hand(totals, size, members):
    assert spread_subset(np.array(totals, dtype=float), size) == members


def test_a_completion_counts_with_the_mean_of_its_images(make_config):
    rewards = make_config(
        rewards=[{"name": "target"}, {"name": "ocr", "weight": 2}, {"name": "seen", "weight": 0}]
    ).rewards
    images = [{"target": 0.0, "ocr": 1.0, "seen": 9}, {"target": 1.0, "ocr": 0.5, "seen": 9}] * 2
    np.testing.assert_allclose(completion_rewards(images, 2, rewards), [0.5 + 1.5] * 2)
    assert np.isnan(completion_rewards([{"target": None, "ocr": None, "seen": 1}], 1, rewards)).all()
    assert spread(np.array([0.1 + 0.2, 0.3 + 0.0])) < 1e-15 and spread(np.array([np.nan, 1])) == 0


def test_a_step_learns_from_the_subset_and_measures_everything(make_config, run_toy):
    config = make_config(
        rollout={"group_size": 6, "subset_size": 3, "record_every_steps": 1, "record_images": "all"},
        trainer={"max_steps": 2},
    )
    seen, original = [], ImageGRPOTrainer.see_rewards

    def see(self, rewards, advantages):
        seen.append(rewards[:, 0].tolist())
        return original(self, rewards, advantages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "see_rewards", see)
        _, _, metrics = run_toy(config)
    for step, learnt in enumerate(seen, 1):
        of_step = [
            [r["rewards"]["target"] for r in record["rollouts"]]
            for record in read_rollouts(config.run_dir)
            if record["step"] == step
        ]
        expected = [np.array(scores)[spread_subset(np.array(scores), 3)] for scores in of_step]
        np.testing.assert_allclose(learnt, np.concatenate(expected), atol=1e-6)
        line = metrics[step - 1]
        assert line["reward/target"] == pytest.approx(np.mean(of_step))
        assert line["reward/mean"] == pytest.approx(np.mean(of_step))
        assert line["reward/std"] == pytest.approx(np.mean([np.std(scores, ddof=1) for scores in of_step]))
        assert line["images/total"] == 12 * step and line["interval/reward/target/n"] == 2


# Other groups in place of dull ones

OUTCOME = DynamicSamplingSection(outcome="target")


@pytest.mark.parametrize(
    ("scores", "right", "found"),
    [([0, 1, 0], None, True), ([1, 1], None, False), ([0, 0], None, False), ([None, None], None, True)]
    + [([0.2, 0.8], 0.5, True), ([0.6, 0.8], 0.5, False), ([0.5, 0.4], 0.5, True)],
)
def test_a_group_differs_if_some_are_right_and_some_wrong(scores, right, found):
    assert differs(group("a", scores), DynamicSamplingSection(outcome="target", right=right)) is found


def test_an_outcome_that_is_neither_right_nor_wrong_is_refused():
    with pytest.raises(RolloutError, match=r"outcome: reward 'target' gave 0.25 for 'a sign a', neither right"):
        differs(group("a", [0, 0.25]), OUTCOME)


def outcome(tokens, prompt):
    """Of three of the eight prompts some images are right; of the others none."""
    return float((tokens < 32).mean() > 0.5) if prompt.id in ("TAXI", "BUS", "OPEN") else 0.0


DYNAMIC = {"prompts_per_step": 3, "dynamic_sampling": {"outcome": "target", "max_rounds": 3}, "record_every_steps": 1}


def test_dull_groups_are_replaced_up_to_the_bound_and_counted(make_config, run_toy):
    config = make_config(rollout=DYNAMIC, trainer={"max_steps": 3})
    _, _, metrics = run_toy(config, reward=outcome)
    painted = 0
    for line in metrics:
        records = [record for record in read_rollouts(config.run_dir) if record["step"] == line["step"]]
        assert len({record["prompt_id"] for record in records}) == 3
        differing = sum(len({r["rewards"]["target"] for r in record["rollouts"]}) == 2 for record in records)
        assert differing >= 2  # of eight prompts all are asked for in two more rounds
        drawn = 3 + line["groups/replaced"] + line["groups/in_vain"]
        painted += 4 * drawn
        assert line["images/total"] == painted
        # TRL would have the mean of the three groups that are learnt from; what was drawn in vain may be all right.
        right = sum(r["rewards"]["target"] for record in records for r in record["rollouts"])
        found = line["reward/target"] * 4 * drawn
        assert found == pytest.approx(round(found)) and right <= round(found) <= right + 4 * (drawn - 3)
    assert any(line["groups/replaced"] for line in metrics)


def test_an_outcome_of_weight_0_counts_what_was_drawn_too(make_config, run_toy):
    rollout = DYNAMIC | {"dynamic_sampling": {"outcome": "outcome", "max_rounds": 3}}
    rewards = [{"name": "target"}, {"name": "outcome", "type": "target", "weight": 0}]
    _, _, metrics = run_toy(make_config(rollout=rollout, rewards=rewards, trainer={"max_steps": 3}), reward=outcome)
    assert any(line["groups/replaced"] for line in metrics)
    for line in metrics:  # one function under two names
        assert line["reward/outcome"] == pytest.approx(line["reward/target"])
        assert line["reward/outcome_std"] == pytest.approx(line["reward/target_std"])


def test_images_of_dropped_groups_are_counted(make_config, run_toy):
    config = make_config(rollout={"prompts_per_step": 4}, trainer={"max_steps": 4})
    _, _, metrics = run_toy(config, drop=("TAXI", "BUS"))
    assert any(line["groups/dropped"] for line in metrics)
    assert [line["images/total"] for line in metrics] == [16, 32, 48, 64]


def test_without_a_dull_group_nothing_is_drawn_twice(make_config, run_toy):
    rollout = {"dynamic_sampling": {"outcome": "target"}, "record_every_steps": 1}

    def alternating():
        """The members of every group are right and wrong in turn."""
        verdicts = itertools.cycle((0.0, 1.0))
        return lambda tokens, prompt: next(verdicts)

    ours, _, metrics = run_toy(make_config(rollout=rollout), reward=alternating())
    theirs, _, plain = run_toy(make_config(), reward=alternating())
    assert {line["groups/replaced"] + line["groups/in_vain"] for line in metrics} == {0}
    assert [line["images/total"] for line in metrics] == [line["images/total"] for line in plain] == [8, 16, 24, 32]
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), name


def test_a_group_that_was_dropped_keeps_its_place_beside_replaced_ones(make_config, run_toy):
    rows, original = [], ImageGRPOTrainer.rollouts

    def see(self):
        rows.append(original(self))
        return rows[-1]

    config = make_config(rollout=DYNAMIC, trainer={"max_steps": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "rollouts", see)
        _, _, metrics = run_toy(config, reward=outcome, drop=("TAXI",))
    assert sum(line["groups/dropped"] for line in metrics) and sum(line["groups/replaced"] for line in metrics)
    for found in rows:
        assert len(found["env_mask"]) == 12  # three groups of four, whatever was dropped or replaced
        for start in range(0, 12, 4):
            scores, masks = found["reward/target"][start : start + 4], found["env_mask"][start : start + 4]
            assert all(any(mask) for mask in masks) != (None in scores)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_resumed_run_replaces_the_same_groups(make_config, run_toy, staleness):
    rollout = DYNAMIC | {"max_staleness": staleness}
    whole, broken = (make_config(rollout=rollout, trainer={"max_steps": 6}) for _ in range(2))
    expected, _, theirs = run_toy(whole, reward=outcome)
    with pytest.raises(KeyboardInterrupt):
        run_toy(broken, reward=outcome, stop_at=6)
    trainer, _, ours = run_toy(broken, reward=outcome)
    assert [line["groups/replaced"] for line in ours] == [line["groups/replaced"] for line in theirs]
    assert [line["images/total"] for line in ours] == [line["images/total"] for line in theirs]
    for name, tensor in expected.model.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[name], tensor, atol=1e-6), name


def test_a_batch_file_keeps_what_was_discarded(tmp_path):
    discarded = (Discarded("b", ({"target": 0.0}, {"target": None}), True), Discarded("c", ({"target": 1.0},), False))
    batch = RolloutBatch((group("a", [0, 1]),), {"wall": 1.0}, 0, {}, discarded)
    save_batch(tmp_path / "batch.safetensors", batch, 3)
    step, again = load_batch(tmp_path / "batch.safetensors")
    assert step == 3 and again.discarded == discarded


# Groups of before


def replay(rewards, most=2, max_age=3, updates=1):
    return Replay(ReplaySection(groups_per_step=most, max_age=max_age), most, rewards, updates, 0)


def names(groups):
    return [each.prompt.id for each in groups]


def test_groups_come_back_in_which_a_good_completion_stands_out(make_config):
    ours = replay(make_config().rewards)
    ours.see(
        0, [group("even", [0, 1]), group("rare", [0, 0, 0, 1]), group("same", [1, 1, 1]), group("fail", [1, 1, 1, 0])]
    )
    assert names(ours.next(1)) == ["rare", "even"]
    assert names(ours.next(1)) == ["rare", "even"]  # looking changes nothing
    ours.see(1, [group("new", [0, 0, 0, 0, 1], version=1)])
    assert names(ours.next(2)) == ["new", "fail"]
    ours.see(2, [])
    assert ours.next(3) == []


def test_a_group_grows_old(make_config):
    ours = replay(make_config().rewards, max_age=2, updates=2)
    ours.see(0, [group("a", [0, 1]), group("b", [0, 1]), group("c", [0, 1])])
    ours.see(1, [])  # a and b are replayed
    assert names(ours.next(2)) == ["c"]
    ours.see(2, [group("d", [0, 1], version=4)])
    assert names(ours.next(3)) == ["d"] and names(ours.next(4)) == ["d"] and not ours.next(5)


def test_what_is_kept_survives_a_checkpoint_without_its_images(make_config, tmp_path):
    ours = replay(make_config().rewards)
    ours.see(0, [group("a", [0, 1]), group("b", [0, 0, 1])])
    ours.save(tmp_path)
    again = replay(make_config().rewards)
    again.load(tmp_path)
    assert names(again.next(1)) == names(ours.next(1)) == ["b", "a"]
    assert again.next(1)[0].rollouts[0].image.size == 0
    assert (tmp_path / "replay-0.safetensors").stat().st_size < 4000


def test_the_weight_of_an_image_is_the_geometric_mean_of_its_tokens_ratios():
    """By hand: differences .1, .3 of two tokens (the third does not count): exp(.2)."""
    old = torch.tensor([[0.1, 0.3, 5.0], [4.0, 4.0, 4.0], [-0.2, -0.2, -0.2]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    weights = replay_weights(torch.zeros(3, 3), old, mask, low=0.9, high=2.0)
    torch.testing.assert_close(weights, torch.tensor([[np.exp(0.2)], [2.0], [0.9]], dtype=torch.float32))


REPLAY = {"prompts_per_step": 3, "replay": {"groups_per_step": 1, "max_age": 2}, "record_every_steps": 1}


def test_a_replayed_group_takes_a_new_ones_place_and_is_weighed_by_images(make_config, run_toy):
    config = make_config(rollout=REPLAY, trainer={"max_steps": 3, "learning_rate": 3e-3})
    seen, original = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        seen.append((inputs["replayed"].clone(), inputs))
        loss = original(self, model, inputs)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        _, _, metrics = run_toy(config)
    assert [line["groups/replayed"] for line in metrics] == [0, 1, 1]
    assert [line["images/total"] for line in metrics] == [12, 20, 28]
    assert [replayed.tolist() for replayed, _ in seen] == [[False] * 12] + [[False] * 8 + [True] * 4] * 2
    replayed, inputs = seen[1]
    weights = inputs["importance_sampling_ratio"]
    torch.testing.assert_close(weights[:8], torch.ones_like(weights[:8]), atol=1e-5, rtol=0)  # new ones agree
    assert (weights[8:] == weights[8:, :1]).all() and (weights[8:] - 1).abs().max() > 1e-3  # one for an image
    assert metrics[1]["mismatch/mean_abs"] < 1e-5 and metrics[1]["replay/weight_mean"] != 1
    records = [(record["step"], record["prompt_id"]) for record in read_rollouts(config.run_dir)]
    assert [sum(step == n for step, _ in records) for n in (1, 2, 3)] == [3, 2, 2]


@pytest.mark.parametrize("updates", [1, 2])
def test_replayed_images_have_no_kl(make_config, run_toy, updates):
    """A token that the policy would not draw any more would have a huge one; new images keep theirs."""
    seen, original = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        before = inputs["ref_per_token_logps"].clone()
        inputs["ref_per_token_logps"][inputs["replayed"]] = 0.0  # as if the reference were sure of these tokens
        loss = original(self, model, inputs)
        seen.append(
            (inputs["replayed"], before, inputs["ref_per_token_logps"].clone(), self._metrics["train"]["kl"][-1])
        )
        return loss

    section = {"max_steps": 2 * updates, "num_iterations": updates, "learning_rate": 3e-3, "beta": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        run_toy(make_config(rollout=REPLAY, trainer=section, checkpoint={"every_steps": updates}))
    later = [row for row in seen if row[0].any()]
    assert len(later) == updates
    for replayed, before, after, kl in later:
        assert torch.equal(before[~replayed], after[~replayed])
        assert (after[replayed] < -1).all()  # the policy's own, of a vocabulary of dozens
        assert kl < 1


@pytest.mark.parametrize("updates", [1, 2])
def test_a_resumed_run_replays_the_same_groups(make_config, run_toy, updates):
    sections = {"rollout": REPLAY, "trainer": {"max_steps": 6, "num_iterations": updates}}
    whole, broken = (make_config(**sections) for _ in range(2))
    expected, _, theirs = run_toy(whole)
    with pytest.raises(KeyboardInterrupt):
        run_toy(broken, stop_at=5)
    folder = RunFolder(broken.run_dir)
    assert (folder.newest_checkpoint() / "replay-0.safetensors").is_file() and len(read_metrics(folder.metrics)) == 4
    trainer, _, ours = run_toy(broken)
    for mine, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in mine.items() if "time/" not in k} == pytest.approx(
            {k: v for k, v in other.items() if "time/" not in k}, abs=1e-5
        )
    for name, tensor in expected.model.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[name], tensor, atol=1e-6), name


def test_the_numbers_do_not_hang_on_who_computes_the_log_probs(make_config, run_toy):
    """DeepSpeed has them computed before the update, in a pass of TRL's own."""
    # With Adam's own epsilon, rounding decides about the sign of steps where gradients are 0.
    sections = {"rollout": REPLAY, "trainer": {"max_steps": 3, "adam_epsilon": 1e-4}}
    ours, _, metrics = run_toy(make_config(**sections))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "one_forward", lambda _: False)
        theirs, _, others = run_toy(make_config(**sections))
    assert metrics[2]["replay/weight_mean"] == pytest.approx(others[2]["replay/weight_mean"], abs=1e-5)
    for name, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], tensor, atol=1e-5, rtol=0, msg=name)


# Counting


def test_images_are_counted_on_from_the_checkpoint_and_never_from_the_middle():
    assert totals([], 8, 2.0) == {"images/total": 8, "time/total": 2.0}
    lines = [{"images/total": 8, "time/total": 2.0, "time/step": 2.0}, {"heldout/ocr": 0.5}]
    assert totals(lines, 8, 1.0) == {"images/total": 16, "time/total": 3.0}
    assert totals([{"time/step": 2.0}], 8, 1.0) == {}  # begun by a version that did not count


# All together


def test_techniques_go_together(make_config, run_toy):
    rollout = DYNAMIC | REPLAY | {"curriculum": {}, "group_size": 6, "subset_size": 4, "prompts_per_step": 4}
    config = make_config(
        rollout=rollout, trainer={"max_steps": 4, "num_iterations": 2, "entropy_coef": 0.01, "entropy_band": (1.0, 2.0)}
    )
    _, _, metrics = run_toy(config, reward=outcome)
    assert len(metrics) == 4 and json.dumps(metrics)
