"""Threads and CPUs per stage: never more busy threads than cores, and no actor that waits for CPUs for ever."""

import pytest

from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.rollout.placement.resources import check_interpreter, plan_resources


def test_a_python_that_ray_cannot_start_is_refused(monkeypatch):
    monkeypatch.setattr("sys.executable", "/home/a user/.venv/bin/python")
    with pytest.raises(RolloutError, match="a path with a space in it: /home/a user/"):
        check_interpreter()


def test_two_cores_take_turns(make_config):
    """All of a step in one chunk: the sampler has the machine to itself, then decoder and reward have a core each."""
    plan = plan_resources(
        make_config(rollout={"prompts_per_step": 8, "prompts_per_chunk": 8}, cluster={"threads": None}), cpus=2
    )
    assert {stage: worker.threads for stage, worker in plan.items()} == {"sample": 2, "decode": 1, "score": 1}
    assert {worker.num_cpus for worker in plan.values()} == {0}


def test_stages_that_overlap_share_the_cores(make_config):
    plan = plan_resources(
        make_config(rollout={"prompts_per_step": 8, "prompts_per_chunk": 2}, cluster={"threads": None}), cpus=2
    )
    assert {worker.threads for worker in plan.values()} == {1}


def test_large_machine_reserves_its_cpus(make_config):
    plan = plan_resources(make_config(cluster={"samplers": 2, "decoders": 2, "rewards": 2, "threads": 2}), cpus=64)
    assert all(worker.num_cpus == worker.threads == 2 for worker in plan.values())


@pytest.mark.parametrize("cpus", [1, 2, 3, 8])
def test_threads_can_be_given(make_config, cpus):
    plan = plan_resources(make_config(cluster={"threads": 3}), cpus)
    assert all(worker.environment()["OMP_NUM_THREADS"] == "3" for worker in plan.values())
