"""A run on a Ray cluster of three nodes: two ranks, samplers, decoders and reward replicas do what one of each does.

Everything is real: three raylets on this machine, vLLM, diffusers, Ray Train with gloo, TRL. The policy is the trained
one that ships with the project. An untrained one will not do: its images hardly differ, so rewards of a group spread by
a thousandth, and dividing by that spread enlarges the last bits of a sum of gradients taken in another order.
"""

import logging
import os
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from blip3o_grpo.api import train
from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.rollout import RolloutPipeline, read_rollouts
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.validate import check_run

ROOT = Path(__file__).parents[2]
REWARD = """
class Balance:
    '''How much brighter the upper left of an image is than the rest, about -1..1: differs from member to member.'''

    def __call__(self, batch):
        halves = [(image[: len(image) // 2], image[len(image) // 2 :]) for image in batch.images]
        return [float(upper[:, ::2].mean() - lower[:, 1::2].mean()) / 25 for upper, lower in halves]
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A Ray cluster of three nodes with four logical CPUs each, whose workers can import the reward."""
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "balance.py").write_text(REWARD)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=4)
        cluster.add_node(num_cpus=4)
        cluster.wait_for_nodes()
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            search = os.pathsep.join([str(folder), str(ROOT)])
            ray.init(
                address=cluster.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": search}},
            )
            yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def configure(run_dir, workers):
    """The same global batch for any number of workers of each kind."""
    return RunConfig.model_validate(
        {
            "run_dir": str(run_dir),
            "prompts": {
                "train": str(ROOT / "configs/prompts/tiny_ocr_train.jsonl"),
                "heldout": str(ROOT / "configs/prompts/tiny_ocr_heldout.jsonl"),
            },
            "rollout": {"prompts_per_step": 4, "group_size": 4, "num_diffusion_steps": 2, "prompts_per_chunk": 1},
            "rewards": [{"name": "balance", "type": "balance:Balance", "replicas": workers}],
            "cluster": {"trainers": workers, "samplers": workers, "decoders": workers, "threads": 1, "nodes": 3},
            "trainer": {"max_steps": 4, "learning_rate": 1e-4, "beta": 0.03, "micro_batch_size": 8},
            "evaluation": {"num_prompts": 2, "images_per_prompt": 2, "grid_prompts": 1},
            "checkpoint": {"every_steps": 4},
            "report_to": [],
        }
    )


@pytest.mark.slow
def test_two_of_each_worker_on_three_nodes_do_what_one_of_each_does(nodes, tmp_path, monkeypatch):
    placed = {}
    close = RolloutPipeline.close

    def note_nodes_and_close(pipeline):
        here = [
            worker.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
            for workers in pipeline._pools.values()
            for worker in workers
        ]
        placed[len(here)] = set(ray.get(here))
        close(pipeline)

    monkeypatch.setattr(RolloutPipeline, "close", note_nodes_and_close)
    one, two = (configure(tmp_path / name, workers) for name, workers in (("one", 1), ("two", 2)))
    results = [train(config) for config in (one, two)]
    assert len(placed[6]) > 1  # two samplers, two decoders, two replicas: more than one node has some
    expected, found = (read_metrics(RunFolder(config.run_dir).metrics) for config in (one, two))
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    assert min(line["reward/std"] for line in expected) > 0.05
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if not name.startswith(("time/", "sampling/", "mismatch/")):
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4), (ours["step"], name)
    for when in ("before", "after"):
        for name, value in getattr(results[0], when).means.items():
            assert getattr(results[1], when).means[name] == pytest.approx(value, abs=1e-4)
    recorded = [[(group["step"], group["prompt_id"]) for group in read_rollouts(c.run_dir)] for c in (one, two)]
    assert recorded[0] == recorded[1] and len(recorded[0]) == 4 * 4


@pytest.mark.slow
def test_a_node_lost_in_the_middle_of_a_step_changes_nothing(nodes, tmp_path):
    """With it go workers, and what they had made; the rest of the cluster makes it again."""
    config = configure(tmp_path / "run", 2)
    run = check_run(config)
    policy = BLIP3oNext.from_pretrained(run.policy_path, parts=("ar",))
    prompts = run.train_prompts[:8]
    with closing(RolloutPipeline.launch(config, run.policy_path)) as pipeline:
        pipeline.sync_weights(policy.ar.state_dict(), version=0)
        expected = pipeline.collect(prompts, step=0)
        home = ray.get_runtime_context().get_node_id()
        homes = {
            (name, index): ray.get(pool[index].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
            for name, pool in pipeline._pools.items()
            for index in range(2)
        }
        assert set(homes.values()) != {home}
        lost = next(node for node in homes.values() if node != home)
        node = next(node for node in nodes.worker_nodes if node.node_id == lost)
        removal = threading.Timer(0.5, nodes.remove_node, args=(node,), kwargs={"allow_graceful": False})
        removal.start()
        found = pipeline.collect(prompts, step=0)
        removal.join()
        again = pipeline.collect(prompts, step=0)  # without what died, if the first was over too soon
    for batch in (found, again):
        for ours, theirs in zip(batch.groups, expected.groups, strict=True):
            assert ours.prompt == theirs.prompt
            for rollout, wanted in zip(ours.rollouts, theirs.rollouts, strict=True):
                assert rollout.completion.seed == wanted.completion.seed
                np.testing.assert_array_equal(rollout.completion.token_ids, wanted.completion.token_ids)
                np.testing.assert_array_equal(rollout.image, wanted.image)
                assert rollout.rewards == wanted.rewards
    assert found.faults["restarts"] + again.faults["restarts"] > 0
