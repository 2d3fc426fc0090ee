"""The simulated steps: what can be worked out by hand, and what must hold for any cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.cluster_events import Chunk, Cluster, Costs, Device, Part, Piece, Simulation, Sync, Worker


def part(images, turn):
    """That one worker of each pool decodes and scores."""
    return Part(images, turn, (Piece(images, turn),))


COSTS = Costs(sample=1.0, decode=2.0, score={"ocr": 1.0}, train=0.5)
TWO_CHUNKS = [[Chunk(0, (part(4, 0),)), Chunk(1, (part(4, 1),))]]


def cluster(samplers=1, decoders=1, rewards=1, trainers=1, cores=100.0, costs=COSTS, **others):
    """Workers of one thread each on the cores of one machine."""
    pools = ((Worker("cores"),) * count for count in (samplers, decoders, rewards, trainers))
    sample, decode, score, train = pools
    return Cluster({"cores": cores}, sample, decode, dict.fromkeys(costs.score, score), train, costs, **others)


def ends_of(capacity, *jobs):
    """When jobs `(start, work, threads)` are done on a device."""
    env = simpy.Environment()
    device, ends = Device(env, capacity), {}

    def job(name, start, work, threads):
        yield env.timeout(start)
        yield device.use(work, threads)
        ends[name] = env.now

    for name, (start, work, threads) in enumerate(jobs):
        env.process(job(name, start, work, threads))
    env.run()
    return [ends[name] for name in range(len(jobs))]


def test_a_device_is_shared_thread_by_thread():
    assert ends_of(2, (0, 3, 1), (0, 3, 1)) == [3, 3]  # a core each
    assert ends_of(1, (0, 3, 1), (0, 3, 1)) == [6, 6]
    assert ends_of(2, (0, 4, 2)) == [2]
    assert ends_of(2, (0, 4, 8)) == [2]  # more threads than cores are no faster
    assert ends_of(2, (0, 4, 2), (0, 2, 1)) == pytest.approx([3, 3])  # two threads of three get two thirds
    # alone for a second, then half as fast for two, then the other one goes on alone
    assert ends_of(1, (0, 2, 1), (1, 3, 1)) == pytest.approx([3, 5])
    assert ends_of(1, (0, 0, 1)) == [0]


def test_stages_of_one_worker_each_follow_each_other_chunk_by_chunk():
    """Sampled at 4 and 8, decoded at 12 and 20, scored at 16 and 24; then eight images are learnt from."""
    outcome = Simulation(cluster(), TWO_CHUNKS).run()
    assert (outcome.rollout_s, outcome.train_s, outcome.step_s) == (24, 4, 28)
    assert outcome.busy_s == {"sample": 8, "decode": 16, "score/ocr": 8, "train": 4}


def test_on_one_core_a_step_is_the_sum_of_its_stages():
    outcome = Simulation(cluster(cores=1), TWO_CHUNKS).run()
    assert outcome.step_s == pytest.approx(8 + 16 + 8 + 4)


def test_two_workers_a_stage_work_side_by_side():
    """Sampled at 4, decoded at 12, scored at 16, both chunks at once."""
    assert Simulation(cluster(2, 2, 2), TWO_CHUNKS).run().rollout_s == 16
    four_at_once = cluster(2, 2, 2, cores=2)  # never more than two calls run, so two cores are enough
    assert Simulation(four_at_once, TWO_CHUNKS).run().rollout_s == 16


def test_a_part_that_is_scored_in_pieces_is_scored_side_by_side():
    """Eight images, sampled at 8 and decoded at 24, by two workers at once."""
    halves = tuple(Piece(4, turn) for turn in (0, 1))
    assert Simulation(cluster(rewards=2), [[Chunk(0, (Part(8, 0, halves),))]]).run().rollout_s == 24 + 4


def test_one_step_off_policy_the_longer_half_decides():
    assert Simulation(cluster(), TWO_CHUNKS, staleness=1).run().step_s == pytest.approx(24)
    slow = cluster(costs=replace(COSTS, train=5.0))
    assert Simulation(slow, TWO_CHUNKS, staleness=1).run().step_s == pytest.approx(40)
    assert Simulation(slow, TWO_CHUNKS).run().step_s == pytest.approx(64)
    # Weights are handed out between the two halves, and neither goes on meanwhile.
    synced = cluster(sync=Sync(transfer_s=5.0))
    assert Simulation(synced, TWO_CHUNKS, staleness=1).run().step_s == pytest.approx(24 + 5)


def test_an_engine_call_costs_whatever_it_draws():
    costs = replace(COSTS, sample_call=10.0)
    outcome = Simulation(cluster(costs=costs), TWO_CHUNKS).run()
    assert outcome.busy_s["sample"] == 2 * 10 + 8


def test_waits_of_a_step_add_up():
    costs = replace(COSTS, collect_s=1.0, after_s=2.0, join_s=4.0)
    outcome = Simulation(cluster(costs=costs, sync=Sync(pack_s=8.0, transfer_s=16.0)), TWO_CHUNKS).run()
    assert outcome.step_s == pytest.approx(28 + 1 + 2 + 4 + 8 + 16)
    assert (outcome.sync_s, outcome.train_s) == (24, 10)


def test_a_caller_s_calls_run_in_the_order_of_their_submission():
    """Ray holds back a call whose arguments are there while an earlier one of the same caller still waits for its own.
    Two samplers: the second chunk is there first, and the decoder still begins with the first one."""
    work = [[Chunk(0, (part(8, 0),)), Chunk(1, (part(1, 0),))]]
    outcome = Simulation(cluster(samplers=2), work).run()
    assert outcome.rollout_s == 8 + 16 + 8 + 1  # sampled, decoded, scored; the second one's turn comes last
    ranks = cluster(samplers=2, trainers=2)
    assert Simulation(ranks, [[work[0][0]], [work[0][1]]]).run().rollout_s == 8 + 16 + 8  # of two callers none waits


def test_results_travel_once_to_every_other_node():
    """Tokens from node 0 to 1, pictures from 1 to 0 (the rewards') and to 2 (the trainer's), one after the other."""
    spread = replace(
        cluster(),
        samplers=(Worker("cores", 0),),
        decoders=(Worker("cores", 1),),
        rewards={"ocr": (Worker("cores", 0),)},
        trainers=(Worker("cores", 2),),
        store_bytes_per_s=10.0,
        completion_bytes=10.0,
        picture_bytes=20.0,
    )
    outcome = Simulation(spread, [[Chunk(0, (part(1, 0),))]]).run()
    assert outcome.rollout_s == 1 + 1 + 2 + 2 + 2  # sampled, sent, decoded, sent for scoring, sent to the trainer
    assert (outcome.store_bytes, outcome.store_out_bytes, outcome.store_in_bytes) == (50, 40, 20)


def test_weights_go_once_to_every_node_that_fetches_them():
    """Two decoders of node 1 share one copy of 100 bytes, node 0 has it; copies into models come on top."""
    decoders = (Worker("cores", 0), Worker("cores", 1), Worker("cores", 1), Worker("cores", 2))
    sync = Sync(pack_s=1.0, store_bytes=100.0, fetchers=decoders, load_s=2.0, transfer_s=3.0)
    spread = replace(cluster(), decoders=decoders, sync=sync, store_bytes_per_s=10.0)
    outcome = Simulation(spread, TWO_CHUNKS).run()
    assert outcome.sync_s == pytest.approx(1 + 2 * 10 + 2)
    assert outcome.store_out_bytes == 200 and outcome.store_in_bytes == 100


@st.composite
def steps(draw):
    """A cluster on so many cores and the work of its ranks."""
    ranks = draw(st.integers(1, 3))
    parts = st.lists(st.integers(1, 5), min_size=1, max_size=3)
    work, turn = [], 0
    for _ in range(ranks):
        chunks = []
        for sizes in draw(st.lists(parts, min_size=1, max_size=3)):
            chunks.append(Chunk(turn, tuple(part(size, turn + number) for number, size in enumerate(sizes))))
            turn += 1
        work.append(chunks)
    counts = [draw(st.integers(1, 4)) for _ in range(3)]
    return cluster(*counts, trainers=ranks, cores=draw(st.sampled_from([1.0, 2.0, 8.0, 100.0]))), work


@settings(max_examples=60, deadline=None)
@given(steps(), st.sampled_from([0, 1]))
def test_work_is_conserved_and_no_step_beats_its_bounds(step, staleness):
    """Nothing is done twice or left out. A step takes no less than its work on all cores, than the busiest pool, or
    than the longest chain of one part, and no more than everything after everything else."""
    made, work = step
    outcome = Simulation(made, work, staleness).run()
    images = sum(chunk.images for rank in work for chunk in rank)
    alone = {"sample": 1.0, "decode": 2.0, "score/ocr": 1.0, "train": 0.5}
    total, cores = sum(alone.values()) * images, made.devices["cores"]
    pools = {"sample": made.samplers, "decode": made.decoders, "score/ocr": made.rewards["ocr"], "train": made.trainers}
    for stage, cost in alone.items():
        # Waiting for a core counts as busy; with a core for every worker there is none.
        assert outcome.busy_s[stage] >= cost * images * 0.999
        if cores == 100:
            assert outcome.busy_s[stage] == pytest.approx(cost * images)
        assert outcome.step_s >= cost * images / len(pools[stage]) * 0.999
    assert outcome.step_s >= total / cores * 0.999
    assert outcome.step_s <= total * 1.001
    if not staleness:
        chain = max(chunk.images + 3.0 * part.images for rank in work for chunk in rank for part in chunk.parts)
        assert outcome.step_s >= chain * 0.999
