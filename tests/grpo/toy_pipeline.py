"""An in-process stand-in for the rollout pipeline: samples with transformers, scores with a plain function.

For tests about the trainer, not the rollouts. A module of its own, so that tests without a policy import no torch.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from blip3o_grpo.policies import BLIP3oNext, PromptEncoder, image_tokens, load_config
from blip3o_grpo.policies.blip3o_next.decoding import denoise_completions, load_head
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, completion_seed, noise_seed
from blip3o_grpo.run.folder import RunFolder


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
        self.painter = None
        if "head" in config.learn:
            self.painter = BLIP3oNext.from_pretrained(policy_path)
            self.painter.ar = self.ar

    def sync_weights(self, state_dict, version, head=None):
        if state_dict is not None:
            self.ar.load_state_dict(state_dict)
        if head is not None:
            load_head(self.painter, head)
        self.version = version
        self.versions.append(version)

    def collect(
        self,
        prompts,
        step,
        *,
        group_size=None,
        num_diffusion_steps=None,
        draw=None,
        explain=False,
        turn=0,
        progress=None,
        train=False,
    ):
        if self.stop_at is not None and step == self.stop_at:
            raise KeyboardInterrupt
        if self.hang_at is not None and step == self.hang_at:
            RunFolder(self.config.run_dir).stop.touch()
            time.sleep(60)
        started = time.perf_counter()
        size = group_size or self.config.rollout.group_size
        groups = [
            self._painted(self._group(prompt, step, size), step, train)
            for prompt in prompts
            if prompt.id not in self.drop
        ]
        if progress is not None:
            progress(len(prompts))
        wall = time.perf_counter() - started
        seconds = {"sample": wall, "decode": 0.0, "score": 0.0, "wall": wall}
        return RolloutBatch(tuple(groups), seconds, len(prompts) - len(groups))

    @torch.no_grad()
    def _painted(self, group, step, train):
        """The group as a head paints it, if it learns: the mean of the latents is added to every reward."""
        rollout, each = self.config.rollout, self.config.rollout.noises_per_completion if train else 1
        if self.painter is None and each == 1:
            return group
        rollouts = [rollout for rollout in group.rollouts for _ in range(each)]
        if self.painter is None:
            rollouts = [
                replace(r, rewards={name: score + 0.1 * (k % each) for name, score in r.rewards.items()})
                for k, r in enumerate(rollouts)
            ]
            return replace(group, rollouts=tuple(rollouts), noises_per_completion=each)
        seeds = [
            noise_seed(self.config.seed, step, group.prompt.id, member, rollout.noise, k, each)
            for member in range(len(group.rollouts))
            for k in range(each)
        ]
        method = self.config.head.method
        latents = denoise_completions(
            self.painter,
            [group.prompt_ids] * len(group.rollouts),
            torch.from_numpy(np.stack([r.completion.token_ids for r in group.rollouts]).astype(np.int64)),
            seeds,
            num_steps=rollout.num_diffusion_steps,
            stochastic=method if train and method.type == "flow_grpo" else None,
        )
        painted = [
            replace(
                r,
                rewards={name: score + latent[-1].mean().item() for name, score in r.rewards.items()},
                latents=latent.numpy() if train else None,
            )
            for r, latent in zip(rollouts, latents, strict=True)
        ]
        return replace(group, rollouts=tuple(painted), noises_per_completion=each)

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
