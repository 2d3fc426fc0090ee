"""The diffusion head of one trainer rank: what it learns of a batch of rollouts, and what a checkpoint keeps of it.

One update follows a batch, before the tokens' own: the AR part still is the one that drew, so the hidden states that
the images were painted from are computed again, without gradient, instead of being carried along. All randomness of the
loss follows from (seed, step, prompt, image), so a resumed run repeats it. Gradients are means over the images of all
ranks; every rank holds the whole head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import get_scheduler

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies.blip3o_next.denoising import Head
from blip3o_grpo.rollout import RolloutBatch
from blip3o_grpo.training.guard_rules import HEAD_SKIPPED, GuardError, non_finite
from blip3o_grpo.training.head.credit import head_advantages, variance_parts
from blip3o_grpo.training.head.objective import frozen_copy, make_objective
from blip3o_grpo.training.head.portions import Images, group_rewards, portions
from blip3o_grpo.training.head.weights import AVERAGED_FILE, FILE, adapt, head_of, whole_weights
from blip3o_grpo.training.mismatch import MismatchError

OLD_FILE = "head_old.safetensors"
OPTIMISER_FILE = "head_optimiser.pt"
HiddenStates = Callable[[Sequence[Sequence[int]], torch.Tensor], torch.Tensor]


class HeadLearner:
    """The head that learns, its reference, its averages and its optimiser.

    Args:
        policy: the head, in float32; nothing else of it is needed.
        hidden_states: of the AR part that drew, `[C, T + 1, D]`, without gradient, of prompts' ids and tokens `[C, T]`.
        config: the run.
        accelerator: of the trainer.
    """

    def __init__(self, policy: Head, hidden_states: HiddenStates, config: RunConfig, accelerator: Accelerator):
        self.policy, self.hidden_states, self.config, self.accelerator = policy, hidden_states, config, accelerator
        self.section = config.head
        reference = frozen_copy(policy) if self.section.method.kl else None
        self.head = head_of(policy).requires_grad_(True)
        adapt(self.head, self.section.lora)
        self.parameters = {name: value for name, value in self.head.named_parameters() if value.requires_grad}
        self.objective = make_objective(policy, reference, config)
        self.old = self.objective.old and head_of(self.objective.old)
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

    # Learning.

    def learn(self, batch: RolloutBatch, step: int) -> tuple[dict[str, float], MismatchError | GuardError | None]:
        """One update on a batch: its metrics, and why it was not made. All ranks must call it.

        Metrics are means over the images that were learnt from, at each of their noise levels or steps. An update is
        not made where loss or gradient is not finite, or where decoder and trainer differ by more than
        `trainer.mismatch_bound` about the sampler's steps; the learning rate goes on as if it had been.
        """
        totals = group_rewards(batch, self.config)
        trainer, size = self.config.trainer, self.section.micro_batch_size // self.objective.rows_per_image
        credit, scale, floor = self.section.credit, trainer.scale_rewards, trainer.min_group_std
        advantages = head_advantages(totals, credit, scale, floor, self._sum)
        rows = self._sum([sum(rewards.size for rewards in totals)])[0] * self.objective.rows_per_image
        self.optimiser.zero_grad(set_to_none=True)
        sums = dict.fromkeys(("head/loss", *self.objective.metrics), 0.0)
        learnt = 0
        for images in portions(batch.groups, advantages, step, self.config, size):
            loss, told = self._loss(images)
            (loss.sum() / rows).backward()  # images without an advantage count, with a gradient of 0
            learnt += len(loss)
            for name, values in ({"head/loss": loss.detach()} | told).items():
                sums[name] += values.double().sum().item()
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.section.max_grad_norm).item()
        *found, learnt = self._sum([*sums.values(), learnt])
        metrics = {name: value / max(learnt, 1) for name, value in zip(sums, found, strict=True)}
        metrics |= {"head/grad_norm": norm, "head/learning_rate": self.scheduler.get_last_lr()[0]}
        metrics |= self._spread_metrics([variance_parts(rewards) for rewards in totals])
        error = self._error(metrics, step)
        if error is not None:
            self.optimiser.zero_grad(set_to_none=True)  # nothing is left to step with
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.scheduler.step()
        self.updates += 1
        if error is None:
            self._follow()
        return metrics | {HEAD_SKIPPED: float(error is not None)}, error

    def _loss(self, images: Images) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = self.accelerator.device
        with torch.no_grad(), self.accelerator.autocast():
            hidden = self.hidden_states(images.prompt_ids, images.tokens.to(device)).float()[images.which.to(device)]
        with self.accelerator.autocast():
            return self.objective.loss(images.to(device), hidden)

    def _error(self, metrics: Mapping[str, float], step: int) -> MismatchError | GuardError | None:
        about, bound = f"step {step}: diffusion head", self.config.trainer.mismatch_bound
        if reason := non_finite(metrics["head/loss"], metrics["head/grad_norm"]):
            return GuardError(f"{about}: {reason}")
        if (difference := metrics.get("head/mismatch", 0.0)) > bound:
            return MismatchError(
                f"{about}: decoder and trainer differ by {difference:.2g} nats about the log-probabilities of the "
                f"sampler's noisy steps (trainer.mismatch_bound={bound:g})"
            )
        return None

    def _sum_gradients(self) -> None:
        """Sum every rank's share of the gradient, which is divided by the images of all of them already."""
        for value in self.parameters.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
            if self.accelerator.num_processes > 1:
                value.grad = self.accelerator.reduce(value.grad, "sum")

    def _follow(self) -> None:
        """Averages follow the new weights."""
        if self.old is not None:
            method = self.section.method
            decay = min(method.old_decay_growth * self.updates, method.old_decay)
            for old, new in zip(self.old.parameters(), self.head.parameters(), strict=True):
                old.lerp_(new.detach(), 1 - decay)
        if self.averages:
            decay = min(self.config.trainer.ema.decay, (1 + self.updates) / (10 + self.updates))
            for name, average in self.averages.items():
                average.lerp_(self.parameters[name].detach(), 1 - decay)

    def _spread_metrics(self, spread: Sequence[tuple[float, float]]) -> dict[str, float]:
        known = [parts for parts in spread if not math.isnan(parts[0])]
        between, within, count = self._sum([sum(p[0] for p in known), sum(p[1] for p in known), len(known)])
        return {"variance/tokens": between / count, "variance/noise": within / count} if count else {}

    def _sum(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()

    # Weights.

    def drawing_weights(self) -> dict[str, torch.Tensor]:
        """Those that decoders paint rollouts with, whole, by released names."""
        return whole_weights(self.head if self.old is None else self.old, self.section.lora)

    def measured_weights(self) -> dict[str, torch.Tensor]:
        """Those that evaluations measure: averaged or not (`trainer.ema.use`)."""
        ema = self.config.trainer.ema
        if not ema or ema.use != "averaged":
            return whole_weights(self.head, self.section.lora)
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._assign(self.averages)
        try:
            return {name: value.clone() for name, value in whole_weights(self.head, self.section.lora).items()}
        finally:
            self._assign(own)

    def save(self, folder: Path) -> None:
        """Write all of it into a checkpoint's folder; one rank does."""
        save_file(_plain(self.parameters), folder / FILE)
        if self.averages:
            save_file(_plain(self.averages), folder / AVERAGED_FILE)
        if self.old is not None:
            save_file(_plain(dict(self.old.named_parameters())), folder / OLD_FILE)
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
            self.old.load_state_dict(load_file(folder / OLD_FILE))
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
