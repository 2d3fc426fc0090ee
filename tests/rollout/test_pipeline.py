"""The pipeline with a real engine: what it samples is what the policy says, before and after a weight sync."""

import copy
import os
import pickle
import signal

import numpy as np
import pytest
import ray
import torch

from blip3o_grpo.policies import image_logprobs
from blip3o_grpo.policies.blip3o_next.decoding import head_weights
from blip3o_grpo.rollout import RolloutError, completion_seed, noise_seed
from blip3o_grpo.rollout.messages import Denoising
from tests.rollout.killing import killing, pid_of


@pytest.fixture(scope="module")
def pipeline(launch, make_config):
    rewards = [
        {"name": "brightness", "type": "toy_rewards:Brightness"},
        {"name": "relative", "type": "toy_rewards:Relative", "weight": 0.5},
    ]
    with launch(make_config(rewards=rewards)) as pipeline:
        pipeline.load_reward_state({"relative": {"mean": 0.25}})
        yield pipeline


def changed(policy, seed=1):
    other = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.ar.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return other


def largest_difference(policy, groups):
    """Largest |sampling log-prob - transformers' log-prob| of all tokens."""
    rows = [[*group.prompt_ids, *rollout.completion.token_ids] for group in groups for rollout in group.rollouts]
    ids, mask = policy.prompts.pad(rows)
    with torch.no_grad():
        logprobs, _ = image_logprobs(policy.ar, ids, mask, policy.image_tokens)
    sampled = np.stack([rollout.completion.logprobs for group in groups for rollout in group.rollouts])
    return np.abs(logprobs.numpy() - sampled).max()


def tokens_of(batch):
    return np.stack([rollout.completion.token_ids for group in batch.groups for rollout in group.rollouts])


def images_of(batch):
    return np.stack([rollout.image for group in batch.groups for rollout in group.rollouts])


def test_logprobs_equal_transformers_before_and_after_a_sync(pipeline, policy, prompts):
    first = pipeline.collect(prompts, step=0)
    assert largest_difference(policy, first.groups) < 1e-4
    other = changed(policy)
    pipeline.sync_weights(other.ar.state_dict(), version=1)
    second = pipeline.collect(prompts, step=0)
    assert largest_difference(other, second.groups) < 1e-4
    assert largest_difference(policy, second.groups) > 1e-2
    assert {r.completion.policy_version for group in second.groups for r in group.rollouts} == {1}
    pipeline.sync_weights(policy.ar.state_dict(), version=2)
    np.testing.assert_array_equal(tokens_of(pipeline.collect(prompts, step=0)), tokens_of(first))


def test_images_are_the_policys_own(pipeline, policy, prompts):
    pipeline.sync_weights(changed(policy).ar.state_dict(), version=3)
    batch = pipeline.collect(prompts[:1], step=5)
    pipeline.sync_weights(policy.ar.state_dict(), version=4)
    group = batch.groups[0]
    other = changed(policy)
    ids, mask = policy.prompts.pad([[*group.prompt_ids, *r.completion.token_ids] for r in group.rollouts])
    seeds = [noise_seed(0, 5, group.prompt.id, member, "shared") for member in range(3)]
    with torch.no_grad():
        images = other.decode(other.hidden_states(ids, mask), other.noise(seeds), 2, 2.0).numpy()
    assert np.abs(images.astype(int) - images_of(batch).astype(int)).max() <= 1


def test_groups_come_back_complete_and_in_order(pipeline, policy, prompts):
    batch = pipeline.collect(prompts, step=7)
    tokens = policy.image_tokens
    assert [group.prompt for group in batch.groups] == prompts
    scores = {"score", "score/brightness", "score/relative"}
    assert batch.skipped_groups == 0 and set(batch.seconds) == {"sample", "decode", "wall"} | scores
    assert batch.seconds["score"] == pytest.approx(batch.seconds["score/brightness"] + batch.seconds["score/relative"])
    drawn = tokens_of(batch)
    assert drawn.shape == (18, tokens.num_tokens) and drawn.dtype == np.int32
    assert tokens.start <= drawn.min() and drawn.max() < tokens.stop
    assert len(np.unique(drawn, axis=0)) == 18  # siblings differ
    for group in batch.groups:
        assert group.prompt_ids == policy.prompts.encode(group.prompt.text)
        for member, rollout in enumerate(group.rollouts):
            assert rollout.completion.seed == completion_seed(0, 7, group.prompt.id, member)
            assert rollout.image.dtype == np.uint8 and rollout.image.shape == (56, 56, 3)
            assert rollout.rewards["brightness"] == pytest.approx(rollout.image.mean() / 255)
            assert rollout.rewards["relative"] == pytest.approx(rollout.rewards["brightness"] - 0.25)


def test_step_changes_the_draw_and_group_size_extends_it(pipeline, prompts):
    again = tokens_of(pipeline.collect(prompts[:2], step=1))
    assert (tokens_of(pipeline.collect(prompts[:2], step=2)) != again).any()
    larger = pipeline.collect(prompts[:2], step=1, group_size=5)
    assert [len(group.rollouts) for group in larger.groups] == [5, 5]
    first_members = np.stack([r.completion.token_ids for group in larger.groups for r in group.rollouts[:3]])
    np.testing.assert_array_equal(first_members, again)


def test_worker_count_and_chunk_size_change_nothing(pipeline, launch, make_config, prompts):
    """The same seed and step: the same tokens and images with 1 sampler and with 2 of everything."""
    reference = pipeline.collect(prompts, step=3)
    pools = {"samplers": 2, "decoders": 2, "threads": 1}
    with launch(make_config(cluster=pools)) as other:
        batch = other.collect(prompts, step=3)
        np.testing.assert_array_equal(tokens_of(batch), tokens_of(reference))
        np.testing.assert_array_equal(images_of(batch), images_of(reference))
        busy = {name: stats["busy_seconds"] for name, stats in other.worker_stats().items()}
        assert set(busy) == {"sampler-0", "sampler-1", "decoder-0", "decoder-1", "reward-brightness-0"}
        assert min(busy.values()) > 0
    single = [pipeline.collect([prompt], step=3) for prompt in prompts]
    np.testing.assert_array_equal(np.concatenate([tokens_of(batch) for batch in single]), tokens_of(reference))


def test_rewards_are_fitted_once_and_keep_their_state(pipeline, prompts):
    batch = pipeline.collect(prompts, step="eval")
    scored = pipeline.fit_rewards(batch.groups, "eval")
    mean = float(np.mean([rollout.rewards["brightness"] for group in batch.groups for rollout in group.rollouts]))
    assert pipeline.reward_state()["relative"]["mean"] == pytest.approx(mean)
    again = pipeline.collect(prompts, step="eval").groups
    fitted = [rollout.rewards["relative"] for group in again for rollout in group.rollouts]
    assert np.mean(fitted) == pytest.approx(0, abs=1e-6)
    assert [r.rewards for group in scored for r in group.rollouts] == [r.rewards for g in again for r in g.rollouts]
    pipeline.load_reward_state({"relative": {"mean": 0.25}})


def test_a_copy_of_the_handle_uses_the_same_workers(pipeline, prompts):
    """As in Ray Train: the handle travels into another process."""

    @ray.remote(num_cpus=0)
    def elsewhere(handle):
        return [rollout.completion.token_ids for rollout in handle.collect(prompts[:1], step=0).groups[0].rollouts]

    assert pickle.loads(ray.cloudpickle.dumps(pipeline)) is not None
    np.testing.assert_array_equal(
        np.stack(ray.get(elsewhere.remote(pipeline))), tokens_of(pipeline.collect(prompts[:1], 0))
    )


def test_workers_and_board_killed_in_the_middle_of_a_step_change_nothing(pipeline, prompts):
    """SIGKILL of every kind of worker at work, and of the board: the same tokens, images, scores and version."""
    before = pipeline.collect(prompts, step=9)
    victims = {"sample": "sample", "decode": "decode", "score/relative": "score"}
    pids = {method: pid_of(pipeline._pools[stage][0]) for stage, method in victims.items()}
    os.kill(pid_of(pipeline._board), signal.SIGKILL)
    with killing(*((pid, method, 0.0) for method, pid in pids.items())):
        after = pipeline.collect(prompts, step=9)
    np.testing.assert_array_equal(tokens_of(after), tokens_of(before))
    np.testing.assert_array_equal(images_of(after), images_of(before))
    for ours, theirs in zip(after.groups, before.groups, strict=True):
        for rollout, expected in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert rollout.rewards == expected.rewards
            assert rollout.completion.policy_version == expected.completion.policy_version
            assert rollout.completion.seed == expected.completion.seed
            np.testing.assert_array_equal(rollout.completion.logprobs, expected.completion.logprobs)
    assert before.faults == {"retries": 0, "restarts": 0, "timeouts": 0}
    assert after.faults["restarts"] == 3 and after.faults["timeouts"] == 0
    assert pipeline.reward_state() == {"relative": {"mean": 0.25}}
    assert set(pids.values()).isdisjoint(pid_of(pipeline._pools[stage][0]) for stage in victims)


def test_stats_name_every_worker(pipeline):
    stats = pipeline.worker_stats()
    assert set(stats) == {"sampler-0", "decoder-0", "reward-brightness-0", "reward-relative-0"}
    for values in stats.values():
        assert 0 < values["peak_memory_gb"] < 12 and values["busy_seconds"] >= 0


def test_too_long_prompt_is_refused(pipeline):
    from blip3o_grpo.policies import PromptError
    from blip3o_grpo.rollout import Prompt

    with pytest.raises(PromptError, match="tokens long"):
        pipeline.collect([Prompt("long", "a very long caption " * 200)], step=0)


def test_numbers_of_diffusion_steps_share_completions_and_noise(pipeline, prompts):
    ways = (Denoising(1, (0.0, 1.0)), Denoising(2, (0.0, 1.0)), Denoising(2, (0.6, 1.0)))
    few, many, half_guided = pipeline.collect_each(prompts[:3], 5, ways, group_size=3)
    assert np.array_equal(tokens_of(few), tokens_of(many))
    assert np.array_equal(tokens_of(half_guided), tokens_of(many))
    assert not np.array_equal(images_of(few), images_of(many))
    assert not np.array_equal(images_of(half_guided), images_of(many))
    assert np.array_equal(images_of(many), images_of(pipeline.collect(prompts[:3], 5, num_diffusion_steps=2)))


def test_broken_weights_stop_the_run(pipeline, policy, prompts):
    state = {name: torch.full_like(tensor, torch.nan) for name, tensor in policy.ar.state_dict().items()}
    pipeline.sync_weights(state, version=50)
    with pytest.raises(RolloutError, match=r"sampler-0, prompt 'a red sign that says \"TAXI\"', member 0"):
        pipeline.collect(prompts, step=0)


def test_a_completion_is_painted_from_several_noises_by_the_head_that_was_sent(launch, make_config, policy, prompts):
    """Also by a decoder that died in between: it fetches the head with the rest."""
    config = make_config(
        rewards=[{"name": "brightness", "type": "toy_rewards:Brightness"}],
        learn=["head"],
        rollout={"noises_per_completion": 2, "noise": "independent"},
    )
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in (*other.sana.parameters(), *other.connector.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    with launch(config) as pipeline:
        pipeline.sync_weights(policy.ar.state_dict(), version=0)
        pipeline.sync_weights(None, version=1, head=head_weights(other))  # the AR part's weights stay
        killed = pid_of(pipeline._pools["decode"][0])
        os.kill(killed, signal.SIGKILL)
        batch = pipeline.collect(prompts[:2], step=5, train=True)
        evaluated = pipeline.collect(prompts[:2], step="eval")
    assert largest_difference(policy, batch.groups) < 1e-4
    for group in batch.groups:
        assert len(group.rollouts) == 6 and group.noises_per_completion == 2
        first, second = group.rollouts[:2]
        assert first.completion is second.completion and (first.image != second.image).any()
        assert first.completion.policy_version == 1
        seeds = [noise_seed(0, 5, group.prompt.id, m, "independent", k, 2) for m in range(3) for k in range(2)]
        ids, mask = policy.prompts.pad([[*group.prompt_ids, *r.completion.token_ids] for r in group.rollouts])
        with torch.no_grad():
            latents = other.denoise(other.hidden_states(ids, mask), other.noise(seeds), 2, 2.0)
        found = torch.from_numpy(np.stack([rollout.latents[-1] for rollout in group.rollouts]))
        torch.testing.assert_close(found, latents, atol=1e-4, rtol=1e-4)
    assert [len(group.rollouts) for group in evaluated.groups] == [3, 3]
    assert all(rollout.latents is None for group in evaluated.groups for rollout in group.rollouts)
