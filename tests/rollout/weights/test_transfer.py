"""Weights go from the trainer into live engines: by vLLM's weight transfer, in its order, whoever dies meanwhile.

On CPUs a backend of the tests (`gloo_transfer.py`) takes NCCL's place; NCCL and CUDA IPC themselves need GPUs.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.policies import image_logprobs, load_config
from blip3o_grpo.policies.blip3o_next.released import write_configs
from blip3o_grpo.rollout import RolloutError, RolloutPipeline, pipeline
from blip3o_grpo.rollout.messages import Snapshot
from blip3o_grpo.rollout.placement import pools
from blip3o_grpo.rollout.weights.path import check_builds, weight_path
from blip3o_grpo.rollout.weights.receiver import NotInGroup
from blip3o_grpo.rollout.workers.engine import EngineSettings, engine_options
from blip3o_grpo.rollout.workers.sampler import Sampler

SEPARATE = {"gpus_per_trainer": 1, "gpus_per_sampler": 1, "gpus_per_decoder": 1}
SHARED = {"gpus_per_trainer": 0.4, "gpus_per_sampler": 0.3, "gpus_per_decoder": 0.3}
HALVES = {"gpus_per_trainer": 0.5, "gpus_per_sampler": 0.5}


@pytest.mark.parametrize(
    ("cluster", "path"),
    [
        ({}, "object_store"),
        ({"gpus_per_sampler": 1}, "object_store"),  # the trainer is on CPUs
        (SEPARATE, "nccl"),
        (SEPARATE | {"samplers": 2, "trainers": 2, "nodes": 2, "gpus_per_node": 4}, "nccl"),
        (SEPARATE | {"samplers": 2, "gpus_per_sampler": 0.5}, "object_store"),  # NCCL wants a GPU for each
        (SHARED, "ipc"),
        (SHARED | {"samplers": 2, "gpus_per_sampler": 0.15}, "ipc"),
        (SHARED | {"samplers": 2}, "object_store"),  # the trainer does not fit beside them
        (SEPARATE | {"weight_sync": "object_store"}, "object_store"),
    ],
)
def test_the_placement_decides_which_way_weights_take(make_config, cluster, path):
    assert weight_path(make_config(cluster=cluster)) == path


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"weight_sync": "nccl"}, r"weight_sync=nccl: it goes from GPU to GPU, and cluster.gpus_per_trainer=0 and"),
        ({"weight_sync": "ipc", "gpus_per_trainer": 1}, "and cluster.gpus_per_sampler=0; use object_store, or auto"),
        (SEPARATE | {"weight_sync": "ipc"}, "no sampler shares a GPU with the trainer.*; use nccl or object_store"),
        (SHARED | {"weight_sync": "nccl"}, "a sampler and the trainer share a GPU.*; use ipc or object_store"),
        (HALVES | {"weight_sync": "ipc", "samplers": 3}, "some samplers are on other GPUs than the trainer"),
        (SEPARATE | {"weight_sync": "nccl", "samplers": 2, "gpus_per_sampler": 0.5}, "samplers share a GPU"),
    ],
)
def test_a_way_that_the_placement_does_not_allow_is_refused(make_config, cluster, message):
    with pytest.raises(ConfigError, match=message):
        weight_path(make_config(cluster=cluster))


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built for CUDA")
@pytest.mark.parametrize("kind", ["trainer", "sampler", "decoder"])
def test_gpus_for_packages_without_cuda_are_refused(make_config, kind):
    with pytest.raises(ConfigError, match=rf"gpus_per_{kind}=1, but torch .*cpu is built for CPUs"):
        check_builds(make_config(cluster={f"gpus_per_{kind}": 1}))
    check_builds(make_config())


def test_engines_are_started_for_their_way(policy_path):
    def options(gpus, transfer):
        return engine_options(policy_path, EngineSettings("float32", 8, gpus, transfer=transfer))

    fetching, nccl, ipc = options(1, None), options(1, "nccl"), options(0.5, "ipc")
    assert "weight_transfer_config" not in fetching and "weight_transfer_config" not in options(0, None)
    assert nccl["weight_transfer_config"] == {"backend": "nccl"}
    assert ipc["weight_transfer_config"] == {"backend": "ipc"}
    assert [each["enable_sleep_mode"] for each in (fetching, nccl, ipc)] == [False, False, True]


def test_a_sampler_with_neighbours_on_its_gpu_is_told_its_cache(tmp_path):
    """vLLM measures by the GPU's free memory, which a decoder that loads beside it changes. The cache is a chunk's, and
    at least that of one sequence of the greatest length."""
    write_configs(tmp_path, 1)
    config = load_config(tmp_path)

    def options(gpus, max_num_seqs):
        return engine_options(tmp_path, EngineSettings("bfloat16", max_num_seqs, gpus))

    per_token = 2 * 28 * 8 * 128 * 2
    assert "kv_cache_memory_bytes" not in options(1, 64)
    assert options(0.5, 64)["kv_cache_memory_bytes"] == 64 * per_token * (729 + 256 + 16)
    assert options(0.5, 1)["kv_cache_memory_bytes"] == per_token * (config.max_position_embeddings + 16)


class Recorder:
    """An engine that notes what it is asked to do."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, *args, *kwargs.values()))


def test_a_sleeping_sampler_wakes_up_before_it_receives_or_loads(policy_path):
    """Sleep mode itself needs a GPU; this is the order of the calls only."""
    sampler = Sampler("sampler-0", policy_path, EngineSettings("float32", 8, 0.5, transfer="ipc"), 1.0)
    sampler.sleep()  # without an engine there is nothing to give back
    with pytest.raises(NotInGroup, match="sampler-0 does not belong"):
        sampler.start_weight_update("a")
    sampler._engine = engine = Recorder()
    sampler._started = True
    sampler.init_weight_transfer_engine("request", "a")
    sampler.sleep()
    sampler.sleep()
    sampler.start_weight_update("a")
    sampler.update_weights("some", "a")
    sampler.update_weights("others", "a")
    sampler.finish_weight_update(Snapshot(3, (ray.ObjectRef.nil(),)), "a")
    assert sampler.policy_version == 3
    sampler.sleep()
    sampler.load({})
    sampler.init_weight_transfer_engine("request", "b")
    names = [
        "init_weight_transfer_engine",
        *("sleep", "wake_up", "start_weight_update", "update_weights", "update_weights", "finish_weight_update"),
        *("reset_prefix_cache", "sleep", "wake_up", "collective_rpc", "reset_prefix_cache"),
        *("shutdown_weight_transfer_engine", "init_weight_transfer_engine"),
    ]
    assert [name for name, *_ in engine.calls] == names
    assert ("sleep", 1) in engine.calls and ("finish_weight_update", "3") in engine.calls


def test_gpus_are_compared_as_ray_gave_them_out():
    from blip3o_grpo.rollout.weights.transfer import check_gpus

    check_gpus("ipc", "a", ["a", "a"])
    check_gpus("nccl", "a", ["b", "c"])
    with pytest.raises(RolloutError, match=r"by ipc: a sampler is on another GPU .*weight_sync=object_store"):
        check_gpus("ipc", "a", ["a", "b"])
    for samplers in (["a"], ["b", "b"]):
        with pytest.raises(RolloutError, match="by nccl: two of trainer and samplers are on the same GPU"):
            check_gpus("nccl", "a", samplers)


def changed(policy, seed):
    other = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.ar.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return other


def assert_sampled_from(policy, batch, version, tolerance=1e-4):
    """All completions carry the version, and their log-probs are transformers' for this policy."""
    rows = [[*group.prompt_ids, *rollout.completion.token_ids] for group in batch.groups for rollout in group.rollouts]
    ids, mask = policy.prompts.pad(rows)
    with torch.no_grad():
        expected, _ = image_logprobs(policy.ar, ids, mask, policy.image_tokens)
    completions = [rollout.completion for group in batch.groups for rollout in group.rollouts]
    assert {completion.policy_version for completion in completions} == {version}
    found = np.stack([completion.logprobs for completion in completions])
    np.testing.assert_allclose(found, expected.numpy(), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    return tmp_path_factory.mktemp("deadly") / "file"


@pytest.fixture(scope="module")
def connected(cluster, make_config, policy_path, policy, deadly):
    """A pipeline of two samplers with the policy's weights, whose trainer rank 0 is this process."""
    from blip3o_grpo.rollout.weights import transfer as weight_transfer

    plain = pools.engine_environment
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1])
        import gloo_transfer

        gloo_transfer.register()
        for module in (pools, pipeline):
            patch.setattr(module, "weight_path", lambda config: "gloo")
        patch.setattr(pools, "Sampler", gloo_transfer.GlooSampler)
        patch.setattr(
            pools, "engine_environment", lambda settings: plain(settings) | {gloo_transfer.DEADLY: str(deadly)}
        )
        patch.setattr(weight_transfer, "trainer_init_info", gloo_transfer.init_info)
        launched = RolloutPipeline.launch(make_config(cluster={"samplers": 2}), policy_path)
        try:
            launched.sync_weights(policy.ar.state_dict(), version=0)
            launched.connect_trainer()
            yield launched
        finally:
            launched.close()


def num_fetched(pipeline):
    return ray.get([sampler.num_fetched.remote() for sampler in pipeline._pools["sample"]])


def test_transferred_weights_are_the_trainers(connected, policy, prompts):
    for version, seed in ((1, 5), (2, 6)):
        other = changed(policy, seed)
        connected.sync_weights(other.ar.state_dict(), version=version)
        assert_sampled_from(other, connected.collect(prompts, step=version), version)
    assert num_fetched(connected) == [1, 1]  # of version 0, before the trainer was there


@pytest.mark.slow
def test_a_restarted_sampler_fetches_and_then_joins_a_new_group(connected, policy, prompts):
    other = changed(policy, 7)
    connected.sync_weights(other.ar.state_dict(), version=3)
    ray.kill(connected._pools["sample"][0], no_restart=False)
    assert_sampled_from(other, connected.collect(prompts, step=3), 3)
    assert num_fetched(connected) == [1, 1]  # the restarted one started counting anew
    other = changed(policy, 8)
    connected.sync_weights(other.ar.state_dict(), version=4)
    assert_sampled_from(other, connected.collect(prompts, step=4), 4)
    assert num_fetched(connected) == [1, 1]


@pytest.mark.slow
def test_a_sampler_that_dies_in_a_transfer_stops_nothing(connected, policy, prompts, deadly):
    deadly.touch()
    other = changed(policy, 9)
    connected.sync_weights(other.ar.state_dict(), version=5)
    assert not deadly.exists()
    assert_sampled_from(other, connected.collect(prompts, step=5), 5)
    assert num_fetched(connected) == [1, 1]  # both are new
    other = changed(policy, 10)
    connected.sync_weights(other.ar.state_dict(), version=6)
    assert_sampled_from(other, connected.collect(prompts, step=6), 6)
    assert num_fetched(connected) == [1, 1]


@pytest.mark.slow
def test_what_a_living_sampler_refuses_is_raised(connected, policy):
    wrong = policy.ar.state_dict() | {"model.layers.99.mlp.down_proj.weight": torch.zeros(2, 2)}
    with pytest.raises(Exception, match=r"99"):
        connected.sync_weights(wrong, version=9)


@ray.remote(num_cpus=0)
class TrainerRank:
    """Rank 0 with a GPU, and nothing to train."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        pipeline.connect_trainer()

    def sync(self, weights, version):
        on_gpu = {name: tensor.cuda() for name, tensor in weights.items()}
        self.pipeline.sync_weights(on_gpu, version)

    def collect(self, prompts, step):
        return self.pipeline.collect(prompts, step)


def assert_transfers(launch, config, policy, prompts):
    """Weights of two versions reach the samplers, drawn from twice each, from a rank with the trainer's GPU share."""
    with launch(config) as launched:
        trainer = TrainerRank.options(num_gpus=config.cluster.gpus_per_trainer).remote(launched)
        for version in (1, 2):
            other = changed(policy, version)
            ray.get(trainer.sync.remote(other.ar.state_dict(), version))
            for step in (0, 1):
                assert_sampled_from(other, ray.get(trainer.collect.remote(prompts, step)), version, tolerance=1e-2)
        ray.kill(trainer)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL wants a GPU each for trainer and sampler: needs 2")
def test_weights_reach_another_gpu_by_nccl(launch, make_config, policy, prompts):
    config = make_config(cluster={"gpus_per_trainer": 1, "gpus_per_sampler": 1})
    assert weight_path(config) == "nccl"
    assert_transfers(launch, config, policy, prompts)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_reach_a_sampler_on_the_same_gpu_by_ipc_and_it_sleeps(launch, make_config, policy, prompts):
    config = make_config(cluster={"gpus_per_trainer": 0.5, "gpus_per_sampler": 0.5})
    assert weight_path(config) == "ipc"
    assert_transfers(launch, config, policy, prompts)
