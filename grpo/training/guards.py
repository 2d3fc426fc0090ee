"""Guards at work inside the trainer: what they see, what they do, and the evidence they leave.

Every rank decides from numbers that all ranks share, so all skip or none. A gradient is thrown away by setting it to
None before the optimiser runs: weights, moments and step counts stay as they are, and the learning rate
goes on as if the step had been made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback

from blip3o_grpo.configs.atomic import staged_folder
from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.rollout import RolloutBatch
from blip3o_grpo.run.metrics import finite
from blip3o_grpo.training.guard_rules import HEAD_SKIPPED, SKIPPED, GuardError, non_finite, too_many_skips, unhealthy
from blip3o_grpo.training.mismatch import MismatchError


class Guards(TrainerCallback):
    """Looks at every step before the optimiser does, and at its metrics after it.

    The trainer notes here what it sees on the way: each new batch, what was `measured`, `losses`, the `gradient_norm`.

    Args:
        section: what to do about what.
        folder: where evidence goes.
        rank: of this process, in the evidence's path.
        can_skip: whether a gradient can still be thrown away when the optimiser is about to run.
        any_rank: whether something is so on any rank; all ranks ask.
        add_metrics: logs values with the step.
    """

    def __init__(
        self,
        section: GuardsSection,
        folder: Path,
        *,
        rank: int,
        can_skip: bool,
        any_rank: Callable[[bool], bool],
        add_metrics: Callable[[dict[str, float]], None],
    ):
        self.section, self.folder, self.rank, self.can_skip = section, folder, rank, can_skip
        self.any_rank, self.add_metrics = any_rank, add_metrics
        self.batch: RolloutBatch | None = None
        self.measured: dict[str, float] = {}
        self.losses: list[torch.Tensor] = []
        self.gradient_norm: Any = 0.0
        self.mismatch_error: MismatchError | None = None

    def see_batch(self, batch: RolloutBatch) -> None:
        """The next steps learn from these rollouts; what was wrong with those before is past."""
        self.batch, self.mismatch_error = batch, None

    def on_mismatch(self, step: int, error: MismatchError, measured: Mapping[str, float]) -> None:
        """Remember it for the optimiser steps on this batch, or stop.

        Raises:
            MismatchError: with `guards.mismatch: stop`.
        """
        if self.section.mismatch == "stop":
            self.save_evidence(step, str(error), measured)
            raise error
        self.mismatch_error = error

    def on_head(
        self,
        step: int,
        error: MismatchError | GuardError,
        measured: Mapping[str, float],
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """The diffusion head made no update: go on without it, or stop.

        Raises:
            MismatchError, GuardError: where the guard is `stop`, or as many updates before it were skipped as
                `guards.max_skips` allows.
        """
        evidence = self.save_evidence(step, str(error), measured)
        key = "mismatch" if isinstance(error, MismatchError) else "non_finite"
        if getattr(self.section, key) == "stop":
            raise type(error)(f"{error}; guards.{key}=stop (evidence: {evidence})")
        if too_many_skips(history, self.section.max_skips, HEAD_SKIPPED):
            raise GuardError(
                f"{error}; {self.section.max_skips} updates of the head before it were skipped already, as many as "
                f"guards.max_skips allows (evidence: {evidence})"
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Throw the gradient away, or stop, if this step must not reach the weights."""
        loss = torch.stack([loss.float() for loss in self.losses]).sum().item() if self.losses else 0.0
        norm = float(self.gradient_norm)
        reason, stop = non_finite(loss, norm), self.section.non_finite == "stop"
        if self.any_rank(reason is not None):
            reason = reason or "loss or gradient of another rank is not finite"
        elif self.mismatch_error:
            reason, stop = str(self.mismatch_error), False
        self.losses = []
        self.add_metrics({SKIPPED: float(reason is not None)})
        if reason is None:
            return
        step = state.global_step + 1  # the one that the optimiser is about to make
        evidence = self.save_evidence(step, reason, {"loss": loss, "grad_norm": norm, **self.measured})
        about = f"step {step}: {reason}"
        if stop:
            raise GuardError(f"{about}; guards.non_finite=stop (evidence: {evidence})")
        if not self.can_skip:
            raise GuardError(f"{about}; DeepSpeed has used the gradient already (evidence: {evidence})")
        if too_many_skips(state.log_history, self.section.max_skips):
            raise GuardError(
                f"{about}; {self.section.max_skips} steps before it were skipped already, as many as guards.max_skips "
                f"allows (evidence: {evidence})"
            )
        optimizer.zero_grad(set_to_none=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Stop where the metrics so far say that going on is pointless.

        Raises:
            GuardError: naming step, reason and key.
        """
        if "reward/mean" not in logs:
            return
        reason = unhealthy(state.log_history, self.section)
        if reason:
            evidence = self.save_evidence(state.global_step, reason, logs)
            raise GuardError(f"step {state.global_step}: {reason} (evidence: {evidence})")

    def save_evidence(self, step: int, reason: str, metrics: Mapping[str, Any]) -> Path:
        """Write this rank's part of the step: metrics, every rollout with its tokens and scores, every image."""
        target = self.folder / f"guard-step-{step}" / f"rank-{self.rank}"
        with staged_folder(target) as staged:
            about = {"step": step, "reason": reason, "metrics": finite(metrics)}
            (staged / "metrics.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            lines = []
            for index, group in enumerate(self.batch.groups if self.batch else ()):
                for member, rollout in enumerate(group.rollouts):
                    image = f"{index:03d}-{member:03d}.png"
                    Image.fromarray(np.asarray(rollout.image)).save(staged / image)
                    line = {
                        "prompt_id": group.prompt.id,
                        "prompt": group.prompt.text,
                        "image": image,
                        "rewards": rollout.rewards,
                        "seed": rollout.completion.seed,
                        "policy_version": rollout.completion.policy_version,
                        "token_ids": rollout.completion.token_ids.tolist(),
                        "logprobs": rollout.completion.logprobs.tolist(),
                    }
                    lines.append(json.dumps(line, ensure_ascii=False) + "\n")
            (staged / "rollouts.jsonl").write_text("".join(lines), encoding="utf-8")
        return target.parent
