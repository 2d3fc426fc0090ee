"""A random tiny policy, prompts, and an in-process stand-in for the rollout pipeline.

The stand-in samples with transformers and scores with a plain function: for tests about the trainer, not the rollouts.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies import PromptEncoder, image_tokens, load_config, random_policy
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, completion_seed
from blip3o_grpo.run.folder import RunFolder

WORDS = ["TAXI", "BANK", "CAFE", "EXIT", "HOTEL", "BUS", "PARK", "OPEN"]


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory):
    return random_policy(tmp_path_factory.mktemp("policy") / "random", num_image_tokens=64)


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "train.jsonl"
    lines = [{"id": w, "prompt": f'a red sign that says "{w}"', "target_text": w} for w in WORDS]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


@pytest.fixture(scope="session")
def make_config(policy_path, prompt_file, tmp_path_factory):
    """Builds small configurations, each with its own run folder; keyword arguments replace or extend sections."""

    def make(**sections) -> RunConfig:
        values = {
            "run_dir": str(tmp_path_factory.mktemp("run")),
            "policy": {"path": str(policy_path)},
            "prompts": {"train": str(prompt_file), "heldout": str(prompt_file)},
            "rollout": {"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0},
            "rewards": [{"name": "target"}],
            "trainer": {"max_steps": 4, "learning_rate": 1e-3, "beta": 0.01},
            "checkpoint": {"every_steps": 2},
            "report_to": [],
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section} if isinstance(values.get(name), dict) else section
        return RunConfig.model_validate(values)

    return make


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    return [Prompt(id=w, text=f'a red sign that says "{w}"', metadata={"target_text": w}) for w in WORDS]


@pytest.fixture(scope="session")
def fake_pipeline(policy_path):
    """Builds a `FakePipeline` on the random policy."""
    return lambda config, **options: FakePipeline(policy_path, config, **options)


@pytest.fixture(scope="session")
def run_toy(fake_pipeline, prompts):
    """Runs a configuration on a `FakePipeline`; returns trainer, pipeline and the lines of metrics.jsonl."""
    from blip3o_grpo.rank import run_training
    from blip3o_grpo.run.metrics import read_metrics

    def run(config, num_prompts=None, **pipeline_options):
        folder = RunFolder(config.run_dir)
        folder.prepare(config)
        pipeline = fake_pipeline(config, **pipeline_options)
        trainer = run_training(config, prompts[:num_prompts], prompts, pipeline)
        return trainer, pipeline, read_metrics(folder.metrics)

    return run


def low_token_share(tokens: np.ndarray, prompt: Prompt) -> float:
    """Toy reward: share of the image tokens that come from the lower half of the codebook (0..31)."""
    return float((tokens < 32).mean())


class FakePipeline:
    """`collect` and `sync_weights` of the real pipeline, in this process.

    `shift` is added to every sampling log-prob (a broken sampler); `drop` names prompts whose reward failed; at step
    `hang_at` a stop is asked for and no rollouts come.
    """

    def __init__(self, policy_path, config, reward=low_token_share, shift=0.0, drop=(), stop_at=None, hang_at=None):
        self.encoder = PromptEncoder.from_pretrained(policy_path)
        model_config: Qwen3Config = load_config(policy_path)
        self.tokens = image_tokens(model_config)
        self.ar = Qwen3ForCausalLM(model_config).eval()
        self.config, self.reward, self.shift, self.drop, self.stop_at = config, reward, shift, drop, stop_at
        self.hang_at = hang_at
        self.version = -1
        self.versions = []

    def sync_weights(self, state_dict, version):
        self.ar.load_state_dict(state_dict)
        self.version = version
        self.versions.append(version)

    def collect(self, prompts, step, *, group_size=None, num_diffusion_steps=None, draw=None, explain=False, turn=0):
        if self.stop_at is not None and step == self.stop_at:
            raise KeyboardInterrupt
        if self.hang_at is not None and step == self.hang_at:
            RunFolder(self.config.run_dir).stop.touch()
            time.sleep(60)
        started = time.perf_counter()
        size = group_size or self.config.rollout.group_size
        groups = [self._group(prompt, step, size) for prompt in prompts if prompt.id not in self.drop]
        wall = time.perf_counter() - started
        seconds = {"sample": wall, "decode": 0.0, "score": 0.0, "wall": wall}
        return RolloutBatch(tuple(groups), seconds, len(prompts) - len(groups))

    @torch.no_grad()
    def _group(self, prompt, step, size):
        prompt_ids = self.encoder.encode(prompt.text)
        seed = completion_seed(self.config.seed, step, prompt.id, 0)
        generator = torch.Generator().manual_seed(seed)
        rows = self.ar.lm_head.weight[self.tokens.start : self.tokens.stop]
        ids, cache = torch.tensor([prompt_ids] * size), None
        drawn, logprobs = [], []
        for _ in range(self.tokens.num_tokens):
            output = self.ar.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits = (output.last_hidden_state[:, -1] @ rows.T) / self.config.rollout.temperature
            chosen = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            logprobs.append(logits.log_softmax(-1).gather(-1, chosen))
            drawn.append(chosen)
            ids = chosen + self.tokens.start
        drawn, logprobs = torch.cat(drawn, 1).numpy(), torch.cat(logprobs, 1).numpy() + self.shift
        rollouts = [
            Rollout(
                Completion((tokens + self.tokens.start).astype(np.int32), lp, self.version, seed + member),
                np.full((8, 8, 3), int(255 * (tokens < 32).mean()), np.uint8),
                {reward.name: self.reward(tokens, prompt) for reward in self.config.rewards},
            )
            for member, (tokens, lp) in enumerate(zip(drawn, logprobs, strict=True))
        ]
        return RolloutGroup(prompt, prompt_ids, tuple(rollouts))
