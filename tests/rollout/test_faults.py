"""Many kills in one run: every step gives what it would have given in peace, however many workers died before."""

import random

import pytest

from rollout import Prompt
from tests.rollout.killing import killing, pid_of

METHODS = {"sample": "sample", "decode": "paint", "score/brightness": "score"}
NUM_ROUNDS = 12
"""More than any call may be repeated."""


def results_of(batch):
    """Everything that must not change, as nested lists."""
    return [
        (
            group.prompt.id,
            rollout.completion.seed,
            rollout.completion.policy_version,
            rollout.completion.token_ids.tolist(),
            rollout.completion.logprobs.tolist(),
            rollout.image.tolist(),
            rollout.rewards,
        )
        for group in batch.groups
        for rollout in group.rollouts
    ]


@pytest.mark.slow
def test_more_kills_than_a_call_may_be_repeated(launch, make_config, policy):
    """One kill a step, of a random worker, at a random moment of its work; the weights change in between."""
    rng = random.Random(0)
    prompts = [Prompt(f"p{i}", f'a red sign that says "{i}"') for i in range(6)]
    config = make_config(cluster={"samplers": 2, "decoders": 2, "threads": 1}, rollout={"prompts_per_chunk": 1})
    with launch(config) as pipeline:
        lost = 0
        for step in range(NUM_ROUNDS):
            pipeline.sync_weights(policy.ar.state_dict(), version=step)
            expected = results_of(pipeline.collect(prompts, step=step))
            stage = rng.choice(sorted(METHODS))
            victim = rng.choice(pipeline._pools[stage])
            with killing((pid_of(victim), METHODS[stage], rng.uniform(0, 0.05))):
                batch = pipeline.collect(prompts, step=step)
            assert results_of(batch) == expected, (step, stage)
            lost += batch.faults["restarts"]
            assert {version for _, _, version, *_ in expected} == {step}
        lost += pipeline.collect(prompts, step=0).faults["restarts"]
        assert lost >= NUM_ROUNDS - 1  # a worker killed at the end of its last call may still be away


@pytest.mark.slow
def test_a_worker_killed_while_it_takes_new_weights_over_has_them(launch, make_config, policy, prompts):
    other = {name: tensor + 0.05 for name, tensor in policy.ar.state_dict().items()}
    with launch(make_config()) as pipeline:
        pipeline.sync_weights(other, version=1)
        expected = results_of(pipeline.collect(prompts, step=0))
        pipeline.sync_weights(policy.ar.state_dict(), version=0)
        with killing(*((pid_of(pipeline._pools[stage][0]), "use", 0.0) for stage in ("sample", "decode"))):
            pipeline.sync_weights(other, version=1)
        assert results_of(pipeline.collect(prompts, step=0)) == expected
