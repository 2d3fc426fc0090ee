"""What the head learns of some images: a loss of each, at noise levels or steps of the sampler that painted them.

The losses are `nft.py` and `flow_grpo.py`; here are the velocities they compare, guided where the sampler is.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.policies.blip3o_next.denoising import Head, guided_steps, path_noise, sampler, velocity
from blip3o_grpo.policies.blip3o_next.stochastic import noisy_step, step_logprob
from blip3o_grpo.training.head.flow_grpo import flow_grpo_loss
from blip3o_grpo.training.head.nft import nft_loss
from blip3o_grpo.training.head.portions import Images
from blip3o_grpo.training.head.weights import head_of

Told = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Loss `[R]` and metrics `[R]` by name, detached."""


class Objective(ABC):
    """A way to learn.

    Args:
        policy: the head that learns.
        reference: the starting one; None: no distance to it is counted.
        config: the run.

    Attributes:
        rows_per_image: R is so many times the number of images.
        metrics: names of what `loss` tells.
        old: the head that paints, if it is another one than that which learns.
    """

    rows_per_image: int
    metrics: tuple[str, ...]
    old: Head | None = None

    def __init__(self, policy: Head, reference: Head | None, config: RunConfig):
        self.policy, self.reference, self.method = policy, reference, config.head.method
        rollout = config.rollout
        self.scale = rollout.guidance_scale
        self.steps = sampler(policy, rollout.num_diffusion_steps)
        guided = guided_steps(self.steps, self.scale, rollout.guidance_interval)
        self.guided = torch.tensor(guided) & config.head.guided

    @abstractmethod
    def loss(self, images: Images, hidden: torch.Tensor) -> Told:
        """Of all images; `hidden` `[B, T + 1, D]` is what they were painted from."""

    def velocity(
        self, policy: Head, hidden: torch.Tensor, latents: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """Of latents at the sampler's steps with these numbers `[B]`."""
        timesteps, guided = (values[numbers].to(latents.device) for values in (self.steps.timesteps, self.guided))
        return velocity(policy, hidden, latents, timesteps, guided, self.scale)

    @torch.no_grad()
    def of_reference(self, hidden: torch.Tensor, latents: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor | None:
        """The starting head's velocity there."""
        return None if self.reference is None else self.velocity(self.reference, hidden, latents, numbers)


class NFTObjective(Objective):
    """DiffusionNFT: the images' last latents, made noisy again."""

    def __init__(self, policy: Head, reference: Head | None, config: RunConfig):
        super().__init__(policy, reference, config)
        self.rows_per_image = self.method.times_per_image
        self.metrics = ("head/moved", *(("head/kl",) if reference else ()))
        if self.method.old_decay:
            self.old = frozen_copy(policy)

    def loss(self, images: Images, hidden: torch.Tensor) -> Told:
        """See `Objective`."""
        times, clean = self.rows_per_image, images.latents[:, -1]
        draws = [torch.Generator().manual_seed(seed) for seed in images.learning_seeds]
        numbers = torch.cat([torch.randint(len(self.steps.timesteps), (times,), generator=draw) for draw in draws])
        noise = torch.cat([torch.randn((times, *clean.shape[1:]), generator=draw) for draw in draws]).to(clean)
        clean, hidden, advantages = (value.repeat_interleave(times, 0) for value in (clean, hidden, images.advantages))
        levels = self.steps.sigmas[numbers].to(clean)
        s = levels.view(-1, 1, 1, 1)
        noisy = (1 - s) * clean + s * noise
        new = self.velocity(self.policy, hidden, noisy, numbers)
        with torch.no_grad():
            old = new.detach() if self.old is None else self.velocity(self.old, hidden, noisy, numbers)
        start = self.of_reference(hidden, noisy, numbers)
        return nft_loss(new, old, start, noisy, clean, levels, advantages, beta=self.method.beta, kl=self.method.kl)


class FlowGRPOObjective(Objective):
    """Flow-GRPO: the sampler's steps that added noise."""

    def __init__(self, policy: Head, reference: Head | None, config: RunConfig):
        super().__init__(policy, reference, config)
        self.rows_per_image = self.method.window
        self.metrics = ("head/clip_ratio", "head/mismatch", *(("head/kl",) if reference else ()))

    def loss(self, images: Images, hidden: torch.Tensor) -> Told:
        """See `Objective`; `head/mismatch` is |log-probability of decoder - of trainer| (nats)."""
        noise = path_noise(self.policy, images.noise_seeds, self.method)
        told = [
            self._loss_of_step(images, hidden, noise[:, 1 + number], number) for number in range(self.rows_per_image)
        ]
        return torch.cat([loss for loss, _ in told]), {
            name: torch.cat([metrics[name] for _, metrics in told]) for name in self.metrics
        }

    def _loss_of_step(self, images: Images, hidden: torch.Tensor, noise: torch.Tensor, number: int) -> Told:
        before, after = images.latents[:, number], images.latents[:, number + 1]
        numbers = torch.full((len(before),), number)
        new, start = self.velocity(self.policy, hidden, before, numbers), self.of_reference(hidden, before, numbers)
        moved = None if start is None else (new - start).square().flatten(1).mean(1)
        level, next_level = self.steps.sigmas[number : number + 2].tolist()
        mean, std = noisy_step(before, new, level, next_level, self.method)
        logprobs = step_logprob(after, mean, std)
        old = step_logprob(std * noise, torch.zeros_like(mean), std)  # what the decoder added
        loss, metrics = flow_grpo_loss(
            logprobs, old, images.advantages, moved, epsilon=self.method.epsilon, kl=self.method.kl
        )
        return loss, metrics | {"head/mismatch": (logprobs.detach() - old).abs()}


def make_objective(policy: Head, reference: Head | None, config: RunConfig) -> Objective:
    """The one that `head.method` names."""
    kind = FlowGRPOObjective if isinstance(config.head.method, FlowGRPOSection) else NFTObjective
    return kind(policy, reference, config)


def frozen_copy(policy: Head) -> Head:
    """The head as it is now."""
    copied = copy.deepcopy(policy)
    head_of(copied).requires_grad_(False)
    return copied
