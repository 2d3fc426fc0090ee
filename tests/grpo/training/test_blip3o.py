"""The head of a BLIP3-o learns in the whole loop, on an in-process pipeline with the real policy and without tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.blip3o_next.decoding import denoise_completions, load_head
from blip3o_grpo.policies.tiny_world.blip3o import random_blip3o
from blip3o_grpo.rank import run_training
from blip3o_grpo.rollout import Completion, Rollout, RolloutBatch, RolloutGroup, noise_seed
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.metrics import read_metrics
from blip3o_grpo.training.checkpoint_weights import load_trained_head

SIZE = 4
FLOW = {"type": "flow_grpo", "epsilon": 0.1}


class FeaturePipeline:
    """Paints with a real BLIP3-o; the reward is the mean of the features."""

    def __init__(self, path, config):
        self.policy, self.config, self.version, self.seen = BLIP3o.from_pretrained(path), config, -1, []

    def sync_weights(self, state_dict, version, head=None):
        if state_dict is not None:
            self.policy.load_ar(state_dict)
        load_head(self.policy, head)
        self.version = version
        self.seen.append(version)

    @torch.no_grad()
    def collect(self, prompts, step, *, turn=0, train=False):
        method = self.config.head.method
        groups = []
        for prompt in prompts:
            ids = self.policy.prompts.encode(prompt.text)
            seeds = [noise_seed(0, step, prompt.id, member, "independent", 0, 1) for member in range(SIZE)]
            latents = denoise_completions(
                self.policy,
                [ids] * SIZE,
                torch.zeros(SIZE, 0, dtype=torch.long),
                seeds,
                num_steps=self.config.rollout.num_diffusion_steps,
                guidance_scale=self.config.rollout.guidance_scale,
                stochastic=method if method.type == "flow_grpo" else None,
            )
            none = Completion(np.zeros(0, np.int32), np.zeros(0, np.float32), self.version, 0)
            rollouts = [
                Rollout(none, np.zeros((8, 8, 3), np.uint8), {"target": latent[-1].mean().item()}, {}, latent.numpy())
                for latent in latents
            ]
            groups.append(RolloutGroup(prompt, ids, tuple(rollouts)))
        return RolloutBatch(tuple(groups), {"sample": 0.0, "decode": 0.0, "score": 0.0, "wall": 0.0})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Weights that differ from zero, so that guidance and gradients have something to do."""
    folder = random_blip3o(tmp_path_factory.mktemp("blip3o"), num_queries=3)
    policy = BLIP3o.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in policy.dit.parameters():
            value.add_(0.03 * torch.randn(value.shape, generator=generator))
    policy.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def train(path, make_config, prompts):
    """Runs so many steps with a method; returns trainer, pipeline, metrics and configuration."""

    def run(steps, stop_at=None, config=None, **head):
        config = config or make_config(
            policy={"path": str(path), "type": "blip3o"},
            learn=["head"],
            head={"learning_rate": 1e-3, "credit": "shared", **head},
            rollout={"group_size": SIZE, "noise": "independent", "num_diffusion_steps": 2},
            trainer={"max_steps": steps, "learning_rate": 1e-6, "beta": 0.001, "min_group_std": 0.0},
        )
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        pipeline = FeaturePipeline(path, config)
        trainer = run_training(config, prompts, prompts, pipeline)
        return trainer, pipeline, read_metrics(folder.metrics), config

    return run


@pytest.mark.parametrize("method", [{"type": "nft"}, FLOW])
def test_the_head_learns_and_the_ar_part_stays(train, path, method):
    trainer, pipeline, metrics, config = train(4, method=method)
    start = BLIP3o.from_pretrained(path)
    assert pipeline.seen == [0, 1, 2, 3]
    assert metrics[-1]["reward/mean"] > metrics[0]["reward/mean"] + 0.02
    assert all(line["head/grad_norm"] > 0 and not line["head/skipped"] for line in metrics)
    if method is FLOW:
        assert all(line["head/mismatch"] < 1e-4 for line in metrics)
    for name, value in start.ar.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name
    trained = load_trained_head(start, RunFolder(config.run_dir).newest_checkpoint(), config)
    for name, value in trainer.head.measured_weights().items():
        assert torch.equal(trained[name], value), name
    assert {name.split(".")[0] for name in trained} == {"connector", "dit"}


def test_adapters_of_its_attention_learn(train, path):
    """What leaves the trainer is merged: names are the plain head's, and attention and connector alone have changed."""
    trainer, _, metrics, _ = train(1, lora={"rank": 2})
    start, merged = BLIP3o.from_pretrained(path), trainer.head.drawing_weights()
    assert metrics[0]["head/grad_norm"] > 0
    changed = set()
    for part, module in start.head_parts().items():
        for name, value in module.state_dict().items():
            if not torch.equal(merged.pop(f"{part}.{name}"), value):
                changed.add(part if part == "connector" else name.split(".")[2])
    assert not merged and changed == {"connector", "attn1", "attn2"}
