"""The section `guards`: what a run does when training has gone wrong, before it learns from it.

Every guard that acts saves what it saw under `RUN/failures/guard-step-N`. What makes no sense is not offered: a
collapse is not mended by skipping a step, and a non-finite gradient must not be ignored.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from blip3o_grpo.configs.section import Section


class GuardsSection(Section):
    """`skip` leaves weights and optimiser as they are for one step; `stop` ends the run with the reason."""

    non_finite: Literal["skip", "stop"] = "skip"
    """NaN or infinity in the loss or the gradient. DeepSpeed updates the weights before anyone can look: there, every
    `skip` stops too."""
    mismatch: Literal["skip", "stop"] = "stop"
    """Sampler and trainer disagree by more than `trainer.mismatch_bound`. `skip`: all `trainer.num_iterations` steps on
    these rollouts."""
    max_skips: int = Field(default=3, ge=0)
    """Steps that may be skipped one after another; the next one stops the run."""
    reward_collapse: Literal["ignore", "stop"] = "stop"
    """The mean training reward over `window_steps` is under `reward_share` of the best such mean. Only rewards above 0
    can collapse this way."""
    reward_share: float = Field(default=0.5, gt=0, lt=1)
    """Of the best mean; see `reward_collapse`."""
    no_spread: Literal["ignore", "stop"] = "stop"
    """For `window_steps` all members of every group scored the same, so there was nothing to learn."""
    window_steps: int = Field(default=20, ge=1)
    """Steps that `reward_collapse` and `no_spread` look back on."""
    gold: tuple[str, ...] = ()
    """Names of rewards of weight 0 that say whether training does what it is for. They are watched at the held-out
    evaluations of `evaluation.every_steps`, each of which then has a checkpoint, and `checkpoint.keep_best` keeps the
    best by the mean of these rewards."""
    gold_fall: Literal["stop", "rollback"] = "stop"
    """A gold reward is lower than at its best evaluation so far, beyond the noise of prompts, while the trained reward
    is higher. `rollback`: the run ends there, later checkpoints are deleted, and the best by gold, which may be the
    starting policy, is its result."""
