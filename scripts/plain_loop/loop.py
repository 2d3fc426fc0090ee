"""One process, plain torch, transformers and diffusers: sample, decode, score, learn, each stage in its best batch.

What it computes is what a run of the same recipe computes (`tests/scripts/test_plain_loop.py` holds it against the
trainer): the same support and temperature, diffusion steps, guidance and noise, rewards, advantages, loss, KL term,
gradient clipping and AdamW. Every completion has the same length, so TRL's ways to average a clipped loss are all
the mean over tokens; one update follows a batch that the same weights have drawn, so the ratio of probabilities is
1, clipping never binds, and there is no sampler to correct for. There are no weights to hand on.

Left out: whatever else a run does (records, metrics, checkpoints, guards), and every saving of ours that a library does
not offer: captions read once for all diffusion steps, prompts read once per group, log-probs in chunks.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import LogitsProcessor, LogitsProcessorList, get_scheduler

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies import BLIP3oNext, ImageTokens, position_ids
from blip3o_grpo.rollout import Prompt, noise_seed
from scripts.plain_loop.scoring import ONE_BY_ONE, WAYS, Scoring, Way

STAGES = ("sample", "decode", "score", "learn")
SIZES = (8, 16, 32, 64, 128, 256)
"""Batches that `tuned` tries, as far as a step has so many images; all of them at once is tried too."""
TRIALS = 2
"""Measurements of each; the shorter one counts."""
EPSILON = 1e-4
"""What TRL adds to a standard deviation."""


@dataclass(frozen=True)
class Setting:
    """How a loop does its stages."""

    sample_batch: int
    decode_batch: int
    micro_batch: int
    """Rollouts of one forward and backward pass."""
    scoring: Way
    num_diffusion_steps: int
    keep_hidden: bool
    """Whether the hidden states that decoding needs are kept while sampling, or computed again from the tokens."""


class OnlyImageTokens(LogitsProcessor):
    """The sampler's support, for `transformers.generate`."""

    def __init__(self, tokens: ImageTokens):
        self.tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, : self.tokens.start] = -torch.inf
        scores[:, self.tokens.stop :] = -torch.inf
        return scores


class PlainLoop:
    """A policy that learns in this process.

    Args:
        config: the recipe.
        policy_path: folder of the starting policy.
        scoring: its rewards.
        setting: how stages are done.
    """

    def __init__(self, config: RunConfig, policy_path: Path, scoring: Scoring, setting: Setting):
        self.config, self.scoring, self.setting = config, scoring, setting
        self.policy = BLIP3oNext.from_pretrained(policy_path)
        self.policy.requires_grad_(False)
        self.reference = copy.deepcopy(self.policy.ar) if config.trainer.beta else None
        self.policy.ar.requires_grad_(True)
        section = config.trainer
        parameters = list(self.policy.ar.parameters())
        self.optimizer = torch.optim.AdamW(
            parameters,
            section.learning_rate,
            betas=(section.adam_beta1, section.adam_beta2),
            eps=section.adam_epsilon,
            weight_decay=0.0,
            fused=True,
        )
        self.scheduler = get_scheduler(
            section.lr_scheduler_type, self.optimizer, section.warmup_steps, section.max_steps
        )

    @torch.inference_mode()
    def sample(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image tokens `[B, T]` of prompts, with `transformers.generate` and its cache.

        With `setting.keep_hidden` also the last hidden states of `<S0>` and the tokens, `[B, T + 1, D]`; one more token
        is drawn for the last of them.
        """
        length, keep = self.policy.image_tokens.num_tokens, self.setting.keep_hidden
        drawn, hidden = [], []
        for part in _slices(len(rows), self.setting.sample_batch):
            ids, mask = self.policy.prompts.pad(rows[part])
            output = self.policy.ar.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=self.config.rollout.temperature,
                top_k=0,
                top_p=1.0,
                use_cache=True,
                min_new_tokens=length + keep,
                max_new_tokens=length + keep,
                eos_token_id=None,
                pad_token_id=0,
                logits_processor=LogitsProcessorList([OnlyImageTokens(self.policy.image_tokens)]),
                return_dict_in_generate=True,
                output_hidden_states=keep,
            )
            drawn.append(output.sequences[:, ids.shape[1] :][:, :length])
            if keep:
                hidden.append(torch.cat([layers[-1][:, -1:] for layers in output.hidden_states], 1))
        return torch.cat(drawn), torch.cat(hidden) if keep else None

    @torch.inference_mode()
    def decode(
        self,
        rows: Sequence[Sequence[int]],
        tokens: torch.Tensor,
        hidden: torch.Tensor | None,
        seeds: Sequence[int],
    ) -> np.ndarray:
        """Images `[B, H, W, 3]` uint8 of what `sample` returned for prompts, and seeds of the noise."""
        images = []
        for part in _slices(len(rows), self.setting.decode_batch):
            if hidden is None:
                states = self.policy.hidden_states(*self.sequences(rows[part], tokens[part]))
            else:
                states = hidden[part]
            images.append(self._decode(states, self.policy.noise(seeds[part])))
        return torch.cat(images).numpy()

    def _decode(self, hidden: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        policy, steps, guidance = self.policy, self.setting.num_diffusion_steps, self.config.rollout.guidance_scale
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(policy.scheduler.config)
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
        condition = policy.connector(torch.cat([torch.zeros_like(hidden), hidden]) if guidance != 1 else hidden)
        latents = noise
        for timestep in scheduler.timesteps:
            both = torch.cat([latents, latents]) if guidance != 1 else latents
            velocity = policy.sana(both, condition, timestep.expand(len(both))).sample
            if guidance != 1:
                without, with_condition = velocity.chunk(2)
                velocity = without + guidance * (with_condition - without)
            latents = scheduler.step(velocity, timestep, latents).prev_sample
        return policy.latents_to_images(latents)

    def learn(self, rows: Sequence[Sequence[int]], tokens: torch.Tensor, rewards: np.ndarray) -> float:
        """One update from rollouts, group after group; returns the loss.

        Args:
            rows: prompts.
            tokens: `[B, T]`.
            rewards: `[B, R]`, NaN where one does not apply.
        """
        loss = self.backward(rows, tokens, rewards)
        nn.utils.clip_grad_norm_(self.policy.ar.parameters(), self.config.trainer.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss

    def backward(self, rows: Sequence[Sequence[int]], tokens: torch.Tensor, rewards: np.ndarray) -> float:
        """Gradient of the loss, which is returned; arguments as of `learn`."""
        section = self.config.trainer
        weights = [reward.weight for reward in self.config.rewards]
        advantages = group_advantages(
            rewards, weights, self.config.rollout.group_size, section.scale_rewards, section.min_group_std
        )
        total = 0.0
        for part in _slices(len(rows), self.setting.micro_batch):
            ids, mask = self.sequences(rows[part], tokens[part])
            logprobs = self.logprobs(self.policy.ar, ids, mask)
            per_token = -advantages[part, None]
            if self.reference is not None:
                with torch.no_grad():
                    away = self.logprobs(self.reference, ids, mask)
                away = away - logprobs
                per_token = per_token + section.beta * (torch.exp(away) - away - 1)
            per_token = torch.exp(logprobs - logprobs.detach()) * per_token  # the ratio also weighs TRL's KL term
            loss = per_token.sum() / tokens.numel()
            loss.backward()
            total += loss.item()
        return total

    def logprobs(self, ar: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-probs `[B, T]` of the last T tokens of sequences, among the image tokens and at the temperature."""
        space, length = self.policy.image_tokens, self.policy.image_tokens.num_tokens
        hidden = ar.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
        hidden = hidden.last_hidden_state[:, -length - 1 : -1]
        logits = F.linear(hidden, ar.lm_head.weight[space.start : space.stop]) / self.config.rollout.temperature
        chosen = ids[:, -length:] - space.start
        return -F.cross_entropy(logits.flatten(0, 1), chosen.flatten(), reduction="none").view(chosen.shape)

    def sequences(self, rows: Sequence[Sequence[int]], tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids `[B, L + T]` of prompts, padded on the left, and their tokens `[B, T]`; and the mask."""
        ids, mask = self.policy.prompts.pad(rows)
        return torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1)

    def rows(self, prompts: Sequence[Prompt], group_size: int) -> list[list[int]]:
        """Token ids of every member's prompt, group after group."""
        return [ids for prompt in prompts for ids in [self.policy.prompts.encode(prompt.text)] * group_size]

    def seeds(self, prompts: Sequence[Prompt], step: int | str, group_size: int) -> list[int]:
        """Seeds of every member's noise, those of a run."""
        seed, noise = self.config.seed, self.config.rollout.noise
        return [noise_seed(seed, step, prompt.id, member, noise) for prompt in prompts for member in range(group_size)]

    def step(self, prompts: Sequence[Prompt], step: int) -> dict[str, dict[str, float]]:
        """A whole step: `seconds` and `cpu_seconds` (of this process and the pool) of every stage."""
        size = self.config.rollout.group_size
        clock = StageClock()
        rows = self.rows(prompts, size)
        tokens, hidden = self.sample(rows)
        clock.ends("sample")
        images = self.decode(rows, tokens, hidden, self.seeds(prompts, step, size))
        clock.ends("decode")
        rewards = self.scoring(images, [prompt for prompt in prompts for _ in range(size)], self.setting.scoring)
        clock.ends("score")
        self.learn(rows, tokens.clone(), rewards)  # inference tensors cannot be learnt from
        clock.ends("learn")
        return clock.stages


class StageClock:
    """Wall and CPU seconds of stages that follow each other; CPU seconds are of this process and its children."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        me = psutil.Process()
        self._processes = [me, *me.children(recursive=True)]
        self._before = self._now()

    def ends(self, stage: str) -> None:
        """A stage is over."""
        before, self._before = self._before, self._now()
        seconds, cpu = (after - earlier for after, earlier in zip(self._before, before, strict=True))
        self.stages[stage] = {"seconds": seconds, "cpu_seconds": cpu}

    def _now(self) -> tuple[float, float]:
        times = [process.cpu_times() for process in self._processes]
        return time.perf_counter(), sum(spent.user + spent.system for spent in times)


def group_advantages(
    rewards: np.ndarray, weights: Sequence[float], group_size: int, scale: str, floor: float
) -> torch.Tensor:
    """Advantages `[B]`, float32: (reward - mean of its group) / max(standard deviation, `floor`).

    Args:
        rewards: `[B, R]`, group after group, NaN where one does not apply.
        weights: `[R]`.
        group_size: members of a group.
        scale: whose standard deviation: `group`, `batch`, or `none`.
        floor: of the standard deviation.
    """
    totals = torch.from_numpy(np.nansum(rewards * np.asarray(weights), axis=1)).view(-1, group_size)
    centred = totals - totals.mean(1, keepdim=True)
    if scale != "none":
        spread = totals.std(1, keepdim=True) if scale == "group" else totals.std()
        centred = centred / (spread.clamp(min=floor) + EPSILON)
    return centred.flatten().float()


def tuned(loop: PlainLoop, prompts: Sequence[Prompt]) -> tuple[Setting, dict[str, dict[str, float]]]:
    """The fastest setting for steps of these prompts, and the seconds of everything that was tried, by stage.

    Batch sizes of `sample`, `decode` and `learn`, and ways to score, are tried stage after stage; nothing is learnt.
    """
    size = loop.config.rollout.group_size
    rows = loop.rows(prompts, size)
    sizes = sorted({min(batch, len(rows)) for batch in (*SIZES, len(rows))})
    found: dict[str, dict[str, float]] = {}

    def best(stage: str, key: str, values: Sequence, work: Callable[[], object]) -> None:
        seconds = dict.fromkeys(map(str, values), np.inf)
        for _ in range(TRIALS):
            for value in values:
                loop.setting = replace(loop.setting, **{key: value})
                started = time.perf_counter()
                work()
                seconds[str(value)] = min(seconds[str(value)], time.perf_counter() - started)
        loop.setting = replace(loop.setting, **{key: min(values, key=lambda value: seconds[str(value)])})
        found[stage] = seconds

    best("sample", "sample_batch", [batch for batch in sizes if batch >= min(16, len(rows))], lambda: loop.sample(rows))
    tokens, hidden = loop.sample(rows)
    seeds = loop.seeds(prompts, "tuning", size)
    best("decode", "decode_batch", sizes, lambda: loop.decode(rows, tokens, hidden, seeds))
    images = loop.decode(rows, tokens, hidden, seeds)
    owners = [prompt for prompt in prompts for _ in range(size)]
    ways = [way for way in WAYS if way != ONE_BY_ONE]
    best("score", "scoring", ways, lambda: loop.scoring(images, owners, loop.setting.scoring))
    rewards = loop.scoring(images, owners, loop.setting.scoring)
    learnt = tokens.clone()  # inference tensors cannot be
    best("learn", "micro_batch", sizes, lambda: loop.backward(rows, learnt, rewards))
    loop.optimizer.zero_grad()
    return loop.setting, found


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]
