"""Which worker gets which chunk and part: callers who collect at once share the pools evenly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from blip3o_grpo.rollout import flow
from blip3o_grpo.rollout.faults.calls import Call
from blip3o_grpo.rollout.flow import Flow
from blip3o_grpo.rollout.messages import GroupRequest
from blip3o_grpo.rollout.requests import Requests
from blip3o_grpo.rollout.types import Prompt
from blip3o_grpo.rollout.weights.packing import POLICY
from scripts.cluster_layout import divide


@dataclass
class Submitted:
    """Notes calls instead of making them."""

    workers: Counter

    def __call__(self, pools, stage, turn, method, *args):
        self.workers[stage, turn % len(pools[stage])] += 1
        return Call(None, stage, "")


@pytest.fixture
def submitted(monkeypatch):
    noted = Submitted(Counter())
    monkeypatch.setattr(flow, "submit", noted)
    return noted.workers


@pytest.mark.parametrize(
    ("ranks", "samplers", "decoders", "chunk"), [(1, 2, 2, 4), (2, 1, 5, 4), (16, 6, 32, 4), (4, 16, 12, 1)]
)
def test_ranks_share_workers_evenly_and_as_the_simulation_has_it(
    make_config, submitted, ranks, samplers, decoders, chunk
):
    """32 prompts of 4 images, 8 images a part."""
    config = make_config(
        rollout={"prompts_per_step": 32, "group_size": 4, "prompts_per_chunk": chunk, "images_per_decode": 8},
        cluster={"trainers": ranks, "samplers": samplers, "decoders": decoders},
    )
    pools = {"sample": range(samplers), "decode": range(decoders)}
    request = GroupRequest(Prompt("a", "a"), [1], 4, 0, (0,) * 4)
    for rank in range(ranks):
        step = Flow(config, pools, None, Requests(config, None), {POLICY: None}, 1, turn=rank)
        step.decode(step.sample([request] * (32 // ranks)), 2)
    for stage, pool in pools.items():
        counts = [submitted[stage, worker] for worker in pool]
        assert max(counts) - min(counts) <= 1, stage
    simulated: Counter = Counter()
    for rank in divide(config):
        for one in rank:
            simulated["sample", one.turn % samplers] += 1
            for part in one.parts:
                simulated["decode", part.turn % decoders] += 1
    assert simulated == submitted
