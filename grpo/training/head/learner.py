"""The diffusion head of one trainer rank: what it learns of a batch of rollouts, and what a checkpoint keeps of it.

One update follows a batch, before the tokens' own: the AR part still is the one that drew, so the hidden states that
the images were painted from are computed again, without gradient, instead of being carried along. All randomness of the
loss follows from (seed, step, prompt, image), so a resumed run repeats it. Gradients are means over the images of all
ranks; every rank holds the whole head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import get_scheduler

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o_next.denoising import path_noise, sampler, velocity
from blip3o_grpo.policies.blip3o_next.stochastic import noisy_step, step_logprob
from blip3o_grpo.rollout import RolloutBatch
from blip3o_grpo.training.guard_rules import non_finite
from blip3o_grpo.training.head.credit import head_advantages, variance_parts
from blip3o_grpo.training.head.flow_grpo import flow_grpo_loss
from blip3o_grpo.training.head.nft import nft_loss
from blip3o_grpo.training.head.portions import Images, group_rewards, portions
from blip3o_grpo.training.head.weights import AVERAGED_FILE, FILE, adapt, head_of, whole_weights

OLD_FILE = "head_old.safetensors"
OPTIMISER_FILE = "head_optimiser.pt"
HiddenStates = Callable[[Sequence[Sequence[int]], torch.Tensor], torch.Tensor]


class HeadMismatchError(RuntimeError):
    """Decoder and trainer disagree about the probability of the sampler's steps."""


class HeadLearner:
    """The head that learns, its reference, its averages and its optimiser.

    Args:
        policy: with the part `head`, in float32; its image decoder is not needed.
        hidden_states: of the AR part that drew, `[C, T + 1, D]`, without gradient, of prompts' ids and tokens `[C, T]`.
        config: the run.
        accelerator: of the trainer.
    """

    def __init__(self, policy: BLIP3oNext, hidden_states: HiddenStates, config: RunConfig, accelerator: Accelerator):
        self.policy, self.hidden_states, self.config, self.accelerator = policy, hidden_states, config, accelerator
        self.section, self.method = config.head, config.head.method
        policy.vae = None
        self.head = head_of(policy)
        self.reference: BLIP3oNext | None = None
        if self.method.kl:
            self.reference = copy.deepcopy(policy)
            head_of(self.reference).requires_grad_(False)
        self.head.requires_grad_(True)
        adapt(policy, self.section.lora)
        self.parameters = {name: value for name, value in self.head.named_parameters() if value.requires_grad}
        self.old: BLIP3oNext | None = None
        if not isinstance(self.method, FlowGRPOSection) and self.method.old_decay:
            self.old = copy.deepcopy(policy)
            head_of(self.old).requires_grad_(False)
        self.averages: dict[str, torch.Tensor] = {}
        if config.trainer.ema:
            self.averages = {name: value.detach().clone() for name, value in self.parameters.items()}
        trainer = config.trainer
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(),
            lr=self.section.learning_rate,
            betas=(trainer.adam_beta1, trainer.adam_beta2),
            eps=trainer.adam_epsilon,
            weight_decay=trainer.weight_decay,
        )
        end = trainer.lr_scheduler_kwargs
        self.scheduler = get_scheduler(
            trainer.lr_scheduler_type,
            self.optimiser,
            num_warmup_steps=trainer.warmup_steps // trainer.num_iterations,
            num_training_steps=trainer.max_steps // trainer.num_iterations,
            scheduler_specific_kwargs=end.model_dump(exclude_none=True) if end else None,
        )
        self.updates = 0
        self.steps = sampler(policy, config.rollout.num_diffusion_steps)

    # Learning.

    def learn(self, batch: RolloutBatch, step: int) -> tuple[dict[str, float], str | None]:
        """One update on a batch: its metrics, and why it was not made if loss or gradient is not finite.

        All ranks must call it.

        Raises:
            HeadMismatchError: the steps' log-probabilities of decoder and trainer differ by more than the bound.
        """
        totals = group_rewards(batch, self.config)
        advantages = [
            head_advantages(rewards, self.section.credit, self.config.trainer.min_group_std) for rewards in totals
        ]
        num_images = self._sum([sum(rewards.size for rewards in totals)])[0]
        times = 1 if isinstance(self.method, FlowGRPOSection) else self.method.times_per_image
        rows = num_images * (self.method.window if isinstance(self.method, FlowGRPOSection) else times)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for images in portions(batch.groups, advantages, step, self.config, self.section.micro_batch_size // times):
            loss, told = self._loss(images)
            (loss.sum() / rows).backward()
            for name, values in ({"head/loss": loss.detach()} | told).items():
                sums[name] = sums.get(name, 0.0) + values.double().sum()
            if "head/mismatch" in told:
                sums["seen"] = sums.get("seen", 0.0) + float(len(loss))
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.section.max_grad_norm).item()
        names = sorted(self._names())
        found = self._sum([float(sums.get(name, 0.0)) for name in names])
        metrics = {name: value / max(rows, 1) for name, value in zip(names, found, strict=True)}
        if "seen" in metrics:
            seen = metrics.pop("seen") * rows
            metrics["head/mismatch"] *= rows / max(seen, 1)
            self._check(metrics["head/mismatch"], step)
        metrics |= {"head/grad_norm": norm, "head/learning_rate": self.scheduler.get_last_lr()[0]}
        metrics |= self._spread_metrics([variance_parts(rewards) for rewards in totals])
        reason = non_finite(metrics["head/loss"], norm)
        if reason is not None:
            self.optimiser.zero_grad(set_to_none=True)  # nothing is left to step with; the learning rate goes on
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.scheduler.step()
        self.updates += 1
        if reason is None:
            self._follow()
        return metrics | {"head/skipped": float(reason is not None)}, reason

    def _loss(self, images: Images) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = self.accelerator.device
        with torch.no_grad(), self.accelerator.autocast():
            hidden = self.hidden_states(images.prompt_ids, images.tokens.to(device)).float()[images.which.to(device)]
        method = self._loss_of_steps if isinstance(self.method, FlowGRPOSection) else self._loss_of_images
        return method(images, hidden, images.latents.to(device), images.advantages.to(device))

    def _loss_of_images(
        self, images: Images, hidden: torch.Tensor, latents: torch.Tensor, advantages: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """DiffusionNFT's `[B * times]`."""
        times, clean = self.method.times_per_image, latents[:, -1]
        draws = [torch.Generator().manual_seed(seed) for seed in images.learning_seeds]
        numbers = torch.stack(
            [torch.randint(len(self.steps.timesteps), (times,), generator=g) for g in draws]
        ).flatten()
        noise = torch.cat([torch.randn((times, *clean.shape[1:]), generator=g) for g in draws]).to(clean)
        clean, hidden = clean.repeat_interleave(times, 0), hidden.repeat_interleave(times, 0)
        levels = self.steps.sigmas[numbers].to(clean)
        s = levels.view(-1, 1, 1, 1)
        noisy = (1 - s) * clean + s * noise
        new = self._velocity(self.policy, hidden, noisy, numbers)
        with torch.no_grad():
            old = new.detach() if self.old is None else self._velocity(self.old, hidden, noisy, numbers)
            start = self.reference and self._velocity(self.reference, hidden, noisy, numbers)
        return nft_loss(
            new,
            old,
            start,
            noisy,
            clean,
            levels,
            advantages.repeat_interleave(times),
            beta=self.method.beta,
            kl=self.method.kl,
        )

    def _loss_of_steps(
        self, images: Images, hidden: torch.Tensor, latents: torch.Tensor, advantages: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Flow-GRPO's `[B * window]`."""
        noise = path_noise(self.policy, images.noise_seeds, self.method)
        losses, told = [], []
        for number in range(self.method.window):
            before, after = latents[:, number], latents[:, number + 1]
            numbers = torch.full((len(before),), number)
            new = self._velocity(self.policy, hidden, before, numbers)
            moved = None
            if self.reference is not None:
                with torch.no_grad():
                    start = self._velocity(self.reference, hidden, before, numbers)
                moved = (new - start).square().flatten(1).mean(1)
            low, high = self.steps.sigmas[number + 1].item(), self.steps.sigmas[number].item()
            mean, std = noisy_step(before, new, high, low, self.method)
            logprobs = step_logprob(after, mean, std)
            old = step_logprob(std * noise[:, 1 + number], torch.zeros_like(mean), std)  # what the decoder added
            loss, metrics = flow_grpo_loss(
                logprobs, old, advantages, moved, epsilon=self.method.epsilon, kl=self.method.kl
            )
            losses.append(loss)
            told.append(metrics | {"head/mismatch": (logprobs.detach() - old).abs()})
        return torch.cat(losses), {name: torch.cat([metrics[name] for metrics in told]) for name in told[0]}

    def _velocity(
        self, policy: BLIP3oNext, hidden: torch.Tensor, latents: torch.Tensor, numbers: torch.Tensor
    ) -> torch.Tensor:
        """Of latents at the sampler's steps with these numbers `[B]`, guided where the sampler is."""
        rollout = self.config.rollout
        low, high = rollout.guidance_interval
        levels = self.steps.sigmas[numbers]
        guided = (levels >= low) & (levels <= high) & self.section.guided
        with self.accelerator.autocast():
            return velocity(
                policy,
                hidden,
                latents,
                self.steps.timesteps[numbers].to(latents.device),
                guided.to(latents.device),
                rollout.guidance_scale,
            )

    def _average_gradients(self) -> None:
        """Sum every rank's share of the gradient, which is divided by the images of all of them already."""
        for value in self.parameters.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
            if self.accelerator.num_processes > 1:
                value.grad = self.accelerator.reduce(value.grad, "sum")

    def _follow(self) -> None:
        """Averages follow the new weights."""
        if self.old is not None:
            decay = min(self.method.old_decay_growth * self.updates, self.method.old_decay)
            for old, new in zip(head_of(self.old).parameters(), self.head.parameters(), strict=True):
                old.lerp_(new.detach(), 1 - decay)
        if self.averages:
            decay = min(self.config.trainer.ema.decay, (1 + self.updates) / (10 + self.updates))
            for name, average in self.averages.items():
                average.lerp_(self.parameters[name].detach(), 1 - decay)

    def _names(self) -> set[str]:
        flow = {"head/clip_ratio", "head/mismatch", "seen"}
        names = flow if isinstance(self.method, FlowGRPOSection) else {"head/moved"}
        return {"head/loss"} | names | ({"head/kl"} if self.method.kl else set())

    def _spread_metrics(self, spread: Sequence[tuple[float, float]]) -> dict[str, float]:
        known = [parts for parts in spread if not math.isnan(parts[0])]
        between, within, count = self._sum([sum(p[0] for p in known), sum(p[1] for p in known), len(known)])
        return {"variance/tokens": between / count, "variance/noise": within / count} if count else {}

    def _check(self, difference: float, step: int) -> None:
        if difference > self.config.trainer.mismatch_bound:
            raise HeadMismatchError(
                f"step {step}: log-probabilities of the sampler's noisy steps differ by {difference:.2g} nats between "
                f"decoder and trainer (trainer.mismatch_bound={self.config.trainer.mismatch_bound:g})"
            )

    def _sum(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()

    # Weights.

    def drawing_weights(self) -> dict[str, torch.Tensor]:
        """Those that decoders paint rollouts with, whole, by released names."""
        return whole_weights(self.old or self.policy, self.section.lora)

    def measured_weights(self) -> dict[str, torch.Tensor]:
        """Those that evaluations measure: averaged or not (`trainer.ema.use`)."""
        ema = self.config.trainer.ema
        if not ema or ema.use != "averaged":
            return whole_weights(self.policy, self.section.lora)
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._assign(self.averages)
        try:
            return {name: value.clone() for name, value in whole_weights(self.policy, self.section.lora).items()}
        finally:
            self._assign(own)

    def save(self, folder: Path) -> None:
        """Write all of it into a checkpoint's folder; one rank does."""
        save_file(_plain(self.parameters), folder / FILE)
        if self.averages:
            save_file(_plain(self.averages), folder / AVERAGED_FILE)
        if self.old is not None:
            save_file(_plain(dict(head_of(self.old).named_parameters())), folder / OLD_FILE)
        state = {
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "updates": self.updates,
        }
        torch.save(state, folder / OPTIMISER_FILE)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        self._assign(load_file(folder / FILE))
        if self.averages:
            self.averages = {
                name: value.to(self.averages[name]) for name, value in load_file(folder / AVERAGED_FILE).items()
            }
        if self.old is not None:
            head_of(self.old).load_state_dict(load_file(folder / OLD_FILE))
        state = torch.load(folder / OPTIMISER_FILE, weights_only=True)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.updates = state["updates"]

    def _assign(self, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
