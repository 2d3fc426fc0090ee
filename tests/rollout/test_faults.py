"""Many kills in one run, and the rarer ways of workers to fail: what comes out is what would have come out in peace."""

import random

import numpy as np
import pytest
import ray

from blip3o_grpo.rollout import Prompt, RolloutError
from blip3o_grpo.rollout.faults.board import Published
from blip3o_grpo.rollout.faults.calls import result, submit
from blip3o_grpo.rollout.messages import DecodedChunk, GroupRequest, Work
from blip3o_grpo.rollout.placement.pools import start_board, start_reward_workers
from blip3o_grpo.rollout.placement.resources import WorkerResources
from blip3o_grpo.rollout.types import WorkerLostError
from tests.rollout.killing import killing, pid_of

METHODS = {"sample": "sample", "decode": "decode", "score/brightness": "score"}
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


@pytest.fixture
def start_reward(cluster, make_config):
    """Makes a worker of one toy reward and its board; both end with the test."""
    started = []

    def start(target, **limits):
        faults = {"retries": 1, "backoff_s": 0.01, "timeout_s": limits}
        config = make_config(rewards=[{"name": "toy", "type": f"toy_rewards:{target}"}], faults=faults)
        namespace = f"faults-{target}"
        board = start_board(config.faults, namespace)
        pools = {"score/toy": start_reward_workers(config, config.rewards[0], namespace, WorkerResources(1, 0, 0))}
        started.extend([board, *pools["score/toy"]])
        return Published(board), pools

    yield start
    for actor in started:
        ray.kill(actor)


def decoded(fault, marker):
    """One group of grey images whose prompt asks for a fault."""
    prompt = Prompt("p", "a sign", {"fault": fault, "marker": str(marker)})
    request = GroupRequest(prompt, [1], 2, 0, (0, 0))
    return DecodedChunk((request,), (np.full((2, 8, 8, 3), 51, np.uint8),), Work("decoder-0", 0.0, 0))


@pytest.mark.slow
def test_a_frozen_process_is_replaced(start_reward, tmp_path):
    """As if stopped by a debugger, or waiting for a dead disk: nothing in it runs any more."""
    published, pools = start_reward("Faulty", score=5)
    call = submit(pools, "score/toy", 0, "score", decoded("freeze once", tmp_path / "frozen"), None)
    assert result(published, call).scores == ([0.5, 0.5],)


@pytest.mark.slow
def test_a_worker_that_dies_of_what_it_loads_stops_the_run(start_reward):
    published, pools = start_reward("Unrestorable")
    snapshot = published.publish("toy", 0, {"mean": 0.5})
    with pytest.raises(WorkerLostError, match="stage sync, worker reward-toy-0: 2 attempts failed: its process died"):
        result(published, submit(pools, "score/toy", 0, "use", snapshot))


@pytest.mark.slow
def test_a_worker_that_does_not_come_back_stops_the_run(start_reward):
    published, pools = start_reward("Brightness", start=5)
    result(published, submit(pools, "score/toy", 0, "ready"))
    ray.kill(pools["score/toy"][0])  # for good, as if no node had room for it
    with pytest.raises(RolloutError, match="reward-toy-0"):
        result(published, submit(pools, "score/toy", 0, "ready"))
