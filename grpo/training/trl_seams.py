"""Every private or undocumented name of TRL, and of transformers' trainer below it, that we use: with reason and link.

Import this module first wherever TRL is needed: what it sets must be settled before TRL is imported. `trainer.py` is
written with the public names of `SeamedGRPOTrainer`. A new TRL is tried with `tests/grpo/training/test_trl_seams.py`,
which looks at every name on its own; each entry ends with its test.
"""

from __future__ import annotations

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
"""TRL warns of `rollout_func` as experimental at every start; every rank of every run would print it.

https://github.com/huggingface/trl/issues/5119 (what it will become); test_trl_is_silent_about_rollout_func
"""
os.environ["TOKENIZERS_PARALLELISM"] = "false"

LENGTHS = "effectively weights each sequence by its completion length"


def not_about_lengths(record: logging.LogRecord) -> bool:
    """For TRL's logger: ratios of whole sequences with a loss of tokens weigh long ones more, and all images are as
    long. test_trl_does_not_warn_of_lengths
    """
    return LENGTHS not in record.getMessage()


logging.getLogger("trl.trainer.grpo_trainer").addFilter(not_about_lengths)

from trl import import_utils  # noqa: E402


def no_vllm(min_version: str | None = None) -> bool:
    """In place of TRL's `is_vllm_available`, before TRL asks: else every rank imports vLLM because it is installed.

    That is a third of a rank's start and 0.15 GB; the rollouts have their own engines.
    https://github.com/huggingface/trl/pull/4712 (rollouts need no vLLM of TRL's); test_a_trainer_does_not_import_vllm
    """
    return False


import_utils.is_vllm_available = no_vllm

import torch  # noqa: E402
from trl import GRPOTrainer  # noqa: E402
from trl.models import prepare_deepspeed as prepare_deepspeed  # noqa: E402
from trl.trainer.utils import split_tensor_dict  # noqa: E402

# `prepare_deepspeed` shards a frozen reference as the policy is; DeepSpeed's own entry point wants an optimiser.
# https://github.com/huggingface/trl/pull/5877; test_trl_prepares_a_reference_for_deepspeed


def kept_weight(loss_type: str, here: float, kept: float) -> float:
    """By what a micro-batch's loss counts more because rows are masked, so that the others' gradient stays as it is.

    Args:
        loss_type: TRL's. `dapo`, `cispo` and `vespo` divide by the tokens that are not masked anyway; `bnpo`, and the
            entropy bonus with any loss, by those of the micro-batch; `grpo`, `dr_grpo`, `sapo` and `luspo` by all rows.
        here: share of this rank's micro-batch that is not masked.
        kept: share of the whole batch.
    """
    if loss_type in ("dapo", "cispo", "vespo"):
        return 1.0
    return here / kept if loss_type == "bnpo" else 1 / kept


MEANS_OF_TOKENS = ("kl", "entropy", "cispo_clip_ratio")
"""Metrics that are means over tokens, or of ratios with one for a row over rows, beside all `..._mean`."""


def of_kept(name: str, value: float, here: float, kept: float, of_rows: bool) -> float:
    """What a metric of one micro-batch counts, so that the mean over micro-batches is that of what is not masked.

    Where the ratio is one for a row, TRL counts masked rows: as never clipped, and in VESPO with weight 1.

    Args:
        name: TRL's.
        value: as TRL computed it.
        here: share of all ranks' micro-batch that is not masked.
        kept: share of the whole batch.
        of_rows: the ratio is one for a row (`importance_sampling_level: sequence`).

    Returns:
        NaN where nothing is known; TRL leaves it out of its means.
    """
    if name == "vespo/phi_seq_mean":
        return (value - (1 - here)) / kept
    if name in MEANS_OF_TOKENS or name.endswith("_mean"):
        return value / kept if of_rows and "clip_ratio" in name else value * here / kept
    unknown = {"clip_ratio/low_min": here < 1, "clip_ratio/high_max": here == 0}
    return math.nan if of_rows and unknown.get(name) else value


UNSYNCED = -1
"""No step: TRL syncs weights before its next rollout."""


class SeamedGRPOTrainer(GRPOTrainer):
    """TRL's trainer with public names for what `ImageGRPOTrainer` needs of its inside.

    Args:
        kwargs: TRL's own, by name.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._learnt: dict[str, Any] | None = None  # what a loss is being computed of
        self._seen: list[tuple[torch.Tensor, ...]] = []  # of the step's micro-batches so far
        self._entropies: torch.Tensor | None = None  # of the micro-batch whose loss is being computed
        self._sync_before_rollouts()

    def _sync_before_rollouts(self) -> None:
        """`use_vllm`, `vllm_generation`, `_last_loaded_step`, set after `__init__`: TRL calls our `sync_weights` before
        the first rollout of every step, and corrects the loss for the sampler's own log-probs.

        As arguments they would start TRL's engine. https://github.com/huggingface/trl/issues/5119,
        https://github.com/huggingface/trl/pull/4712; test_trl_syncs_weights_before_each_rollout
        """
        self.use_vllm, self.vllm_generation, self._last_loaded_step = True, self, UNSYNCED

    @abstractmethod
    def sync_weights(self) -> None:
        """Give the weights to whoever draws; TRL calls it on every rank, once a step."""

    def sync_again(self) -> None:
        """`_last_loaded_step`: samplers have other weights than the step's, so TRL syncs before the next rollout even
        if the step is still the same. test_trl_syncs_weights_before_each_rollout
        """
        self._last_loaded_step = UNSYNCED

    def set_reference(self, beta: float, reference: torch.nn.Module | None) -> None:
        """`beta` and `ref_model`, set after `__init__`: the KL term's weight and its frozen policy.

        TRL would load the reference by the policy's name, which a released checkpoint folder does not allow, and takes
        no model. Without one (LoRA) it switches the adapter off. https://github.com/huggingface/trl/issues/3948,
        https://github.com/huggingface/trl/pull/2746; test_a_reference_can_be_set_after_init
        """
        self.beta = beta
        if reference is not None:
            self.ref_model = reference

    def one_forward(self) -> bool:
        """Whether the log-probs before the first update of a batch are those of that update's own forward pass: it
        learns from the whole batch, so no weight has changed in between. TRL does so without vLLM and with one update
        only, else it computes them in a pass of their own.
        """
        return self.args.gradient_accumulation_steps % self.args.steps_per_generation == 0

    @abstractmethod
    def weigh(
        self, rollout_logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor, replayed: torch.Tensor
    ) -> torch.Tensor:
        """Importance weights of tokens `[B, T]` or images `[B, 1]`, in the place of TRL's, with `one_forward` or where
        rows are `replayed` (`[B]` bool)."""

    @abstractmethod
    def replayed_rows(self, num_rows: int) -> torch.Tensor:
        """Which of this rank's rows of the step were drawn for an earlier one, `[num_rows]` bool."""

    @abstractmethod
    def logprobs(
        self, model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, batch_size: int | None, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs `[B, T]` of the completions' tokens, and their distributions' entropies if asked for."""

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Overridden: TRL computes logits over the whole vocabulary, we need those of the image tokens only.

        Its parameters grow with every kind of model (https://github.com/huggingface/trl/pull/5176), and which rows of
        the logits it takes was disputed (https://github.com/huggingface/trl/issues/3681): the test compares our numbers
        with those of the plain model. test_log_probs_are_asked_for_by_these_names
        """
        logprobs, entropies = self.logprobs(model, input_ids, attention_mask, batch_size, compute_entropy)
        self._entropies = entropies
        if self._learnt is not None and "ref_per_token_logps" in self._learnt:
            self._leave_out_replayed(self._learnt, logprobs.detach())
        if self._learnt is not None and "importance_sampling_ratio" not in self._learnt:
            self._weigh(self._learnt, logprobs.detach())
        return logprobs, entropies, None

    def _leave_out_replayed(self, inputs: dict[str, Any], logprobs: torch.Tensor) -> None:
        """No KL on replayed rows: TRL's estimate (`_compute_loss`) holds for tokens of the policy that learns. One that
        it would hardly draw any more counts exp(reference - policy), and was seen to outweigh all others of a step.

        The estimate and its gradient are 0 where both say the same. test_replayed_images_have_no_kl
        """
        here = inputs["replayed"][:, None]
        inputs["ref_per_token_logps"] = torch.where(here, logprobs, inputs["ref_per_token_logps"])

    def _weigh(self, inputs: dict[str, Any], logprobs: torch.Tensor) -> None:
        """`importance_sampling_ratio`, and for further updates `old_per_token_logps`: fill in what TRL left out
        (`_generate_and_score_completions`); after the last micro-batch all of the step's log-probs are known, and
        looked at. TRL keeps these inputs for the updates of a batch."""
        if self.num_iterations > 1:
            inputs["old_per_token_logps"] = logprobs
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        weights = self.weigh(inputs["sampling_per_token_logps"], logprobs, mask, inputs["replayed"])
        inputs["importance_sampling_ratio"] = weights
        self._seen.append((inputs["sampling_per_token_logps"], logprobs, mask, weights, inputs["replayed"]))
        if self.accelerator.sync_gradients:
            seen, self._seen = self._seen, []
            self.check_rollouts(*map(torch.cat, zip(*seen, strict=True)))

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Overridden to keep what TRL makes advantages of: rewards `[N, R]` of all ranks, NaN where there is none.

        https://github.com/huggingface/trl/pull/3620; test_the_rewards_of_all_ranks_are_kept
        """
        self.gathered_rewards = super()._calculate_rewards(*args, **kwargs)
        return self.gathered_rewards

    @abstractmethod
    def see_rewards(self, rewards: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """The advantages `[B]` of this rank that are learnt from.

        Args:
            rewards: `[N, R]` of all ranks, NaN where there is none.
            advantages: `[B]`, TRL's for this rank's part of the rows.
        """

    @abstractmethod
    def check_rollouts(
        self,
        rollout_logprobs: torch.Tensor,
        old_logprobs: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor,
        replayed: torch.Tensor,
    ) -> None:
        """Look at a step's rollouts before the optimiser runs: log-probs `[B, T]` of sampler and trainer, what counts,
        the importance weights `[B, T]` of tokens or `[B, 1]` of images, and which rows are of earlier steps, `[B]`."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Overridden to see the batch that TRL makes of rollouts, with its advantages, before any update uses it.

        TRL logs the difference of the log-probs but stops nowhere, and has no floor for a group's standard deviation;
        the keys of the batch are its own. Where the update's own forward pass tells the log-probs (`one_forward`), TRL
        believes for as long that nothing is to be corrected and one update follows, and computes none.
        https://github.com/huggingface/trl/issues/5119; test_the_losses_inputs_hold_both_log_probs,
        test_advantages_are_replaced_in_the_batch, test_one_forward_gives_the_numbers_of_two
        """
        updates, one_forward = self.num_iterations, self.one_forward()
        self.vllm_importance_sampling_correction = not one_forward
        self.num_iterations = 1 if one_forward else updates
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction, self.num_iterations = True, updates
        batch["advantages"] = self.see_rewards(self.gathered_rewards, batch["advantages"])
        batch["replayed"] = self.replayed_rows(len(batch["advantages"]))
        if not one_forward:
            drawn, old = batch["sampling_per_token_logps"], batch["old_per_token_logps"]
            mask = batch["completion_mask"] * batch["tool_mask"]  # `tool_mask` is the rows' `env_mask`
            if batch["replayed"].any():
                batch["importance_sampling_ratio"] = self.weigh(drawn, old, mask, batch["replayed"])
            self.check_rollouts(drawn, old, mask, batch["importance_sampling_ratio"], batch["replayed"])
        self._in_order = batch
        return batch

    def take_batch(self, inputs: Any) -> None:
        """`_prepare_inputs`, called where no loss follows: the step's batch is drawn, scored and seen.

        test_a_batch_is_drawn_where_tokens_do_not_learn
        """
        self._prepare_inputs(inputs)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """Overridden: TRL shuffles a batch before it cuts it into micro-batches, for updates on parts of it.

        Of an update on the whole only the sum counts, and siblings side by side share the reading of their prompt.
        https://github.com/huggingface/trl/pull/3283; test_micro_batches_hold_whole_groups
        """
        self._in_order = None
        inputs = super()._prepare_inputs(generation_batch)
        if self._in_order is None or not self.one_forward():
            return inputs
        self._buffered_inputs = split_tensor_dict(self._in_order, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Overridden, for batches with dropped groups only: their rows, which are masked, count in TRL's means.

        `num_items_in_batch` counts the tokens of all ranks and micro-batches that are not masked. Loss, its entropy
        bonus (`_entropy_bonus_enabled`) and metrics (`_metrics`) of a micro-batch are weighed so that means over ranks
        and micro-batches are means over those.
        https://github.com/huggingface/trl/issues/6369 (`dapo` is right);
        test_a_dropped_group_changes_nothing_for_the_others
        """
        self._learnt = inputs
        try:
            return self._loss_of_kept(model, inputs, *args, **kwargs)
        finally:
            self._learnt = self._entropies = None

    def _loss_of_kept(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        micro_batches = self.args.gradient_accumulation_steps * self.accelerator.num_processes
        kept = inputs["num_items_in_batch"].item() / (mask.numel() * micro_batches)
        if kept == 1:
            return super().compute_loss(model, inputs, *args, **kwargs)
        before = {name: len(values) for name, values in self._metrics["train"].items()}
        coefficient = self._bonus_coefficient()
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        here = self.accelerator.reduce(mask.sum().double(), reduction="mean").item() / mask.numel()
        of_rows = self.importance_sampling_level == "sequence"
        for name, values in self._metrics["train"].items():
            if len(values) > before.get(name, 0):
                values[-1] = of_kept(name, values[-1], here, kept, of_rows)
        own = (mask.sum() / mask.numel()).item()
        weight = kept_weight(self.loss_type, own, kept)
        loss = loss * weight
        if coefficient:
            loss = loss - (kept_weight("bnpo", own, kept) - weight) * coefficient * self._mean_entropy(mask)
        return loss

    def set_entropy_coefficient(self, coefficient: float) -> None:
        """`entropy_coef`, which TRL reads anew in every loss: of the bonus, or if negative of a penalty.

        TRL steers it one way only (https://github.com/huggingface/trl/pull/5233 for its metrics);
        test_the_entropy_is_pushed_back_into_its_band
        """
        self.entropy_coef = coefficient

    def _bonus_coefficient(self) -> float:
        """What TRL is about to multiply the mean entropy by; `_last_world_entropy` is that of the last step.

        test_a_dropped_group_leaves_the_others_gradient_as_it_is
        """
        if not self._entropy_bonus_enabled:
            return 0.0
        off = self.use_adaptive_entropy and self._last_world_entropy > self.args.entropy_target
        return 0.0 if off else self.entropy_coef

    def _mean_entropy(self, mask: torch.Tensor) -> torch.Tensor:
        """The micro-batch's mean entropy as TRL's bonus has it."""
        if self.top_entropy_quantile < 1:
            mask = mask * self.get_high_entropy_mask(self._entropies, mask, 1 - self.top_entropy_quantile)
        mean = (self._entropies * mask).sum() / mask.sum().clamp(min=1.0)
        return mean / self.current_gradient_accumulation_steps

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """`_metrics`: log these values with the current step.

        TRL's `log_metric` reaches reward functions only, and averages over ranks what is a sum already.
        https://github.com/huggingface/trl/pull/5233; test_metrics_are_kept_by_mode_and_name
        """
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)

    def has_metrics(self) -> bool:
        """Whether anything waits to be logged: not so at the end of a run. See `add_metrics`."""
        return bool(self._metrics["train"])

    def rename_metrics(self, rename: Callable[[str], str | None]) -> None:
        """Give the waiting metrics other names; those without a new one are dropped. See `add_metrics`."""
        named = {rename(name): values for name, values in self._metrics["train"].items()}
        self._metrics["train"].clear()
        self._metrics["train"].update({name: values for name, values in named.items() if name})

    @abstractmethod
    def see_gradient_norm(self, norm: Any) -> None:
        """Look at a step's gradient norm before the optimiser runs."""

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Overridden, of transformers' trainer: the only place that knows the norm before the optimiser runs.

        Callbacks are called before the optimiser, but get the norm with the log: too late for the guards.
        https://github.com/huggingface/transformers/issues/26143,
        https://github.com/huggingface/transformers/pull/31095; test_the_gradient_norm_is_seen_before_the_optimiser_runs
        """
        norm = super()._get_grad_norm(*args, **kwargs)
        self.see_gradient_norm(norm)
        return norm

    @abstractmethod
    def write_checkpoint(self, write: Callable[[], None]) -> None:
        """Save the last finished step; `write` has transformers fill `checkpoint-N` in `args.output_dir`."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Overridden, of transformers' trainer: a checkpoint is staged, completed, checked and only then moved.

        transformers writes in place (https://github.com/huggingface/transformers/pull/27820 tried to stage), and its
        public `save_model` knows nothing of optimiser and state. test_a_checkpoint_is_written_through_the_seam
        """
        self.write_checkpoint(lambda: super(SeamedGRPOTrainer, self)._save_checkpoint(model, trial))

    def save_checkpoint(self) -> None:
        """Save outside the schedule, on every rank. See `_save_checkpoint`."""
        self._save_checkpoint(self.model, None)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card per checkpoint: the run folder describes itself."""
