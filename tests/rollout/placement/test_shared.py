"""Trainer ranks that share GPUs with other workers: never two on one, and every GPU gets its part of the others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rollout import RolloutError
from blip3o_grpo.rollout.placement.gpus import place
from blip3o_grpo.rollout.placement.resources import WorkerResources
from blip3o_grpo.rollout.placement.shared import cpus_beside_ranks
from blip3o_grpo.rollout.weights.path import weight_path
from blip3o_grpo.training.parallel import check_distinct

SHARES = {"gpus_per_trainer": 0.6, "gpus_per_sampler": 0.2, "gpus_per_decoder": 0.2}
FOUR = {"trainers": 4, "samplers": 4, "decoders": 4, **SHARES}
ALL = {"trainer": 1, "sampler": 1, "decoder": 1}


def test_every_gpu_gets_one_rank_and_its_part_of_the_others(make_config):
    assert place(make_config(cluster=FOUR)).nodes == ((ALL,) * 4,)
    assert place(make_config(cluster=FOUR | {"nodes": 2, "gpus_per_node": 2})).nodes == ((ALL,) * 2,) * 2
    few = place(make_config(cluster=FOUR | {"samplers": 1, "decoders": 6, "gpus_per_decoder": 0.1}))
    assert few.nodes == (({"trainer": 1, "sampler": 1, "decoder": 2}, {"trainer": 1, "decoder": 2},
                          {"trainer": 1, "decoder": 1}, {"trainer": 1, "decoder": 1}),)  # fmt: skip
    assert place(make_config(cluster=FOUR), [3, 0, 5]).nodes == ((ALL,) * 3, (), (ALL,))


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"gpus_per_trainer": 0.5}, "4 trainer ranks could land on the same GPU.*more than half of one"),
        (
            {"gpus_per_node": 3, "samplers": 1, "decoders": 1},
            r"cluster.trainers=4 want a GPU each; .*gpus_per_node=3 have 3",
        ),
        ({"gpus_per_decoder": 1}, r"gpus_per_decoder=1: a GPU with trainer \+ sampler \+ decoder would be taken 1.8"),
        ({"samplers": 8, "decoders": 3}, "would be taken 1.2 times"),
        ({"weight_sync": "ipc"}, "cluster.weight_sync=ipc: a rank that has its rollouts would put samplers to sleep"),
        ({"weight_sync": "nccl"}, "cluster.weight_sync=nccl: a sampler and the trainer share a GPU"),
    ],
)
def test_what_cannot_be_is_one_line(make_config, cluster, message):
    with pytest.raises(ConfigError, match=message):
        weight_path(make_config(cluster=FOUR | cluster))


def test_weights_take_the_object_store(make_config):
    assert weight_path(make_config(cluster=FOUR)) == "object_store"


def test_cpus_are_reserved_with_the_gpus_that_their_workers_are_on(make_config):
    plan = {stage: WorkerResources(threads=3, num_cpus=3, num_gpus=0.2) for stage in ("sample", "decode", "score")}
    cpus = cpus_beside_ranks(make_config(cluster=FOUR | {"samplers": 2, "decoders": 5, "gpus_per_decoder": 0.1}), plan)
    assert cpus == [{"CPU": 9}, {"CPU": 6}, {"CPU": 3}, {"CPU": 3}]
    none = {stage: WorkerResources(threads=3, num_cpus=0, num_gpus=0.2) for stage in plan}
    assert cpus_beside_ranks(make_config(cluster=FOUR), none) == [{}] * 4


def test_ranks_on_one_gpu_are_named():
    check_distinct(["0 of node a", "1 of node a", "0 of node b"])
    with pytest.raises(RolloutError, match=r"ranks 0 and 2 were placed on the same GPU \(0 of node a\).*per_trainer=1"):
        check_distinct(["0 of node a", "1 of node a", "0 of node a"])


PROGRAM = """
import json, sys, tempfile
import ray, ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from blip3o_grpo.cluster import ranks
from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout.placement.pools import start_on
from blip3o_grpo.rollout.placement.resources import plan_resources
from blip3o_grpo.rollout.placement.shared import SharedGpus
from blip3o_grpo.training.parallel import check_own_gpus

class Toy:
    def __init__(self, name):
        self.name = name
    def gpu(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]

def rank(job):
    check_own_gpus()
    ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    with open(f"{job['folder']}/{ray.train.get_context().get_world_rank()}", "w") as file:
        json.dump(ids, file)

config = RunConfig.model_validate_json(sys.argv[1])
ray.init(address="local", num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False)
plan = plan_resources(config, 2)
shared = SharedGpus(config, plan)
toys = {}
for stage, count in (("sample", 3), ("decode", 3)):
    toys[stage] = [start_on(Toy, f"{stage}-{i}", "toys", plan[stage], {}, shared, stage) for i in range(count)]
found = {stage: ray.get([toy.gpu.remote() for toy in group]) for stage, group in toys.items()}
shared.leave_to_ranks()
with tempfile.TemporaryDirectory() as folder:
    for attempt in range(2):  # ranks that are started again
        TorchTrainer(rank, train_loop_config={"folder": folder}, torch_config=TorchConfig(backend="gloo"),
                     scaling_config=ranks(config), run_config=ray.train.RunConfig(storage_path=folder)).fit()
        found[f"trainer {attempt}"] = [json.load(open(f"{folder}/{i}")) for i in range(3)]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_ray_puts_them_where_the_plan_says(make_config, tmp_path):
    """Three ranks, samplers and decoders on a machine with four pretended GPUs, one more than needed: a rank, a sampler
    and a decoder on each of three, and ranks that are started again find the same three."""
    config = make_config(
        rollout={"prompts_per_step": 3}, cluster=FOUR | {"trainers": 3, "samplers": 3, "decoders": 3, "threads": None}
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, config.model_dump_json()], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len({tuple(ids) for ids in found["sample"]}) == 3
    for workers in found.values():
        assert sorted(workers) == sorted(found["sample"])
