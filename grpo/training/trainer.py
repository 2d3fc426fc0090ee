"""TRL's `GRPOTrainer` on image tokens, joined to our rollouts; the algorithm itself stays TRL's.

One optimiser step on a new batch, in the order in which it happens, on every rank with its own share of the prompts:

    sync_weights     the weights of the last update go to samplers and decoders
                     (with `rollout.max_staleness: 1` once the rollouts are there, and before the next ones start)
    rollouts         sample, decode and score: one group of images per prompt (`rollout/pipeline.py`)
    learn_head       the diffusion head's own update, if it learns (`head/learner.py`)
    logprobs         the reference policy's, of what was sampled
    (TRL)            scores become advantages, within each group
    see_rewards      advantages of groups that hardly differ shrink (`advantages.py`)
    training_step    for each micro-batch the policy's own log-probs, loss and gradient
    check_rollouts   sampler and trainer must agree; this and the guards come before the optimiser runs
    log              the step's metrics, under the project's names

With `trainer.num_iterations` above 1 further steps learn from the same batch: from `training_step` on, without
`check_rollouts`, since the rollouts are those that agreed. A batch has the number of its first step.

Scores travel with the rollouts as extra fields, and each trained reward is a TRL reward function that picks up its own
column. TRL never sees rewards of weight 0: their columns would count as "scorable" where no trained reward applies, and
change the scale of the advantages. What TRL offers no public name for is in `trl_seams.py`.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import save_file
from transformers import PrinterCallback, Qwen3ForCausalLM, TrainerCallback

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import storage_errors
from blip3o_grpo.configs.training import DeepSpeedSection
from blip3o_grpo.policies import ImageTokens, PromptEncoder
from blip3o_grpo.rollout import Prompt, RolloutBatch
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.metrics import rename, rename_selected
from blip3o_grpo.run.retention import checkpoint_score
from blip3o_grpo.run.stopping import StopRequested, interruptible
from blip3o_grpo.training.advantages import floored_advantages, group_spreads, spread_metrics
from blip3o_grpo.training.ahead import Ahead
from blip3o_grpo.training.averaging import FILE as AVERAGED_FILE
from blip3o_grpo.training.averaging import AveragedWeights
from blip3o_grpo.training.callbacks import StopAfterBatch
from blip3o_grpo.training.draws import Drawing, Draws
from blip3o_grpo.training.entropy_band import band_coefficient
from blip3o_grpo.training.forwards import text_forward, training_forward
from blip3o_grpo.training.guards import Guards
from blip3o_grpo.training.lora import merge_adapter, peft_config
from blip3o_grpo.training.mismatch import (
    MismatchError,
    check_mismatch,
    counted_weights,
    importance_weights,
    largest_difference,
    mismatch,
    mismatch_sums,
    replay_metrics,
    replay_weights,
    weight_metrics,
)
from blip3o_grpo.training.parallel import prepare_reference
from blip3o_grpo.training.reference import FILE as REFERENCE_FILE
from blip3o_grpo.training.reference import MovingReference
from blip3o_grpo.training.rows import columns, masked_row, reward_column
from blip3o_grpo.training.step_metrics import (
    StepClock,
    all_scores,
    batch_metrics,
    drawn_rewards,
    num_painted,
    prompt_means,
    selection_metrics,
    totals,
)
from blip3o_grpo.training.text_kl import METRIC as TEXT_KL
from blip3o_grpo.training.text_kl import TextKL
from blip3o_grpo.training.trl_seams import SeamedGRPOTrainer

if TYPE_CHECKING:
    from accelerate import Accelerator
    from trl import GRPOConfig

    from blip3o_grpo.rollout import RolloutPipeline, RolloutRecorder
    from blip3o_grpo.training.head.learner import HeadLearner


class ImageGRPOTrainer(SeamedGRPOTrainer):
    """One rank of the training; every rank collects the groups of its own prompts.

    Args:
        ar: the AR part that learns. `reference` of the KL term is a copy of it as given.
        config: the run.
        args: TRL arguments (see `blip3o_grpo.rank.make_args`); whole groups per rank, whole batches per optimiser step.
        encoder: prompt format; its tokenizer is TRL's processing class.
        image_tokens: the action space.
        prompts: training prompts; `prompt_schedule` says which batch sees which.
        pipeline: anything with `collect` and `sync_weights` of `rollout.RolloutPipeline`.
        recorder: keeps each group's best and worst image, of all ranks.
        texts: token ids of what `trainer.text_kl` replays.
        head: the diffusion head, where it learns.
        summarise: makes metrics of a step's rewards, prompt by prompt (`step_metrics.prompt_means`).
    """

    def __init__(
        self,
        ar: Qwen3ForCausalLM,
        *,
        config: RunConfig,
        args: GRPOConfig,
        encoder: PromptEncoder,
        image_tokens: ImageTokens,
        prompts: Sequence[Prompt],
        pipeline: RolloutPipeline,
        recorder: RolloutRecorder | None = None,
        texts: Sequence[Sequence[int]] = (),
        head: Callable[[Accelerator], HeadLearner] | None = None,
        summarise: Callable[[Sequence[Mapping[str, float]]], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.run = config
        self.encoder = encoder
        self.action_space = image_tokens
        self.prompts = prompts
        self.pipeline = pipeline
        self.recorder = recorder
        self.summarise = summarise
        self.clock = StepClock()
        self.folder = RunFolder(config.run_dir)
        self.guards = Guards(
            config.guards,
            self.folder.failures,
            rank=args.process_index,
            can_skip=not isinstance(config.trainer.parallel, DeepSpeedSection),
            any_rank=self.any_rank,
            add_metrics=self.add_metrics,
        )
        section = config.trainer
        self.learns_tokens = "tokens" in config.learn
        beta = section.beta if self.learns_tokens else 0.0
        reference = copy.deepcopy(ar) if beta and not section.lora else None
        start = None  # of `text_kl`, where it is not the reference: a reference may move
        if section.text_kl and not section.lora and (reference is None or section.sync_ref_model):
            start = copy.deepcopy(ar)
        self.averaged = AveragedWeights(section.ema.decay, self.folder.checkpoints) if section.ema else None
        self.ahead = Ahead(args.process_index)
        self.stale = False  # whether the step's rollouts are of older weights than its own
        self.drawing = Drawing(config, prompts, pipeline, args.process_index, args.world_size)
        self.num_replayed = 0  # groups of the step that are of earlier ones: this rank's last
        self.num_painted = 0  # images of the step, over all ranks
        super().__init__(
            model=ar,
            reward_funcs=[reward_column(reward.name) for reward in config.rewards if reward.weight],
            args=args,
            # So many rows as rollouts are asked for; which prompts they are of is for `Drawing` to say.
            train_dataset=Dataset.from_dict({"prompt": [str(place) for place in self.drawing.schedule]}),
            processing_class=encoder.tokenizer,
            rollout_func=_rollouts,
            peft_config=peft_config(section.lora) if section.lora else None,
            callbacks=[
                self.clock,
                *([self.averaged] if self.averaged else []),
                *callbacks,
                self.guards,  # after the callback that writes the metrics
                StopAfterBatch(section.num_iterations, lambda: self.any_rank(self.folder.stop.exists())),
            ],
        )
        self.remove_callback(PrinterCallback)
        if self.learns_tokens:
            self.model.forward = self._forward(ar)  # with LoRA, `ar` holds the adapters
        reference, start = self._frozen(reference), self._frozen(start)
        self.set_reference(beta, reference)
        self.text_kl: TextKL | None = None
        if section.text_kl:
            kept = start or reference  # None: it is the model without its adapters
            forward = text_forward(kept or self.model, self.accelerator, adapters=kept is not None)
            self.text_kl = TextKL(config, texts, forward, self.accelerator.process_index, self.accelerator.device)
        self.head = head(self.accelerator) if head else None
        self._published_tokens = False
        self.moving: MovingReference | None = None
        if section.sync_ref_model:
            alpha, every = section.ref_model_mixup_alpha, section.ref_model_sync_steps
            self.moving = MovingReference(reference, alpha, every, self.folder.checkpoints)
            self.add_callback(self.moving)

    def _forward(self, ar: Qwen3ForCausalLM) -> Callable[..., tuple | torch.Tensor]:
        return training_forward(ar, self.action_space, self.run.trainer, self.temperature)

    def _frozen(self, policy: Qwen3ForCausalLM | None) -> torch.nn.Module | None:
        """A copy of the starting policy, ready to be asked as the one that learns."""
        if policy is None:
            return None
        policy.requires_grad_(False).eval()
        policy.forward = self._forward(policy)
        return prepare_reference(policy, self.accelerator, self.run)

    @property
    def step(self) -> int:
        """The optimiser step that is being made, from 1; its number is that of all that comes of it."""
        return self.state.global_step + 1

    # The step, in its order.

    def sync_weights(self) -> None:
        """Publish the current weights to samplers and decoders; TRL calls it before each batch, on every rank.

        Waits until all of them have the weights: what is sampled next carries this step as its policy version. While
        rollouts are being drawn ahead, `collect` does it after them.
        """
        if not self.ahead.holds(self.step):
            self._sync()

    def rollouts(self) -> dict[str, list]:
        """This rank's rollouts of the step in TRL's form (`rows.columns`).

        A group that was dropped (`on_error: skip`) keeps its place with every token masked and no reward, so it adds
        nothing to loss, advantages, KL or metrics of the others.
        """
        draws = self.collect()
        self.num_replayed = len(draws.replayed)
        return columns(draws, self.run.rewards, self._masked, self.run.rollout.subset_size)

    def collect(self) -> Draws:
        """Sample, decode and score the step's groups; record and measure what came back.

        Consumes the weights of `sync_weights`; waits for the slowest of this rank's groups, or for a request to stop.

        Raises:
            StopRequested: on all ranks, once one of them has seen the request.
            RolloutError: a stage failed.
        """
        started, step = time.perf_counter(), self.step
        drawn_ahead, prompts = self.ahead.holds(step), self.drawing.prompts_of(step)
        draw = self.ahead.batch if drawn_ahead else partial(self.drawing.draw, step, prompts)
        batch = interruptible(draw, self.folder.stop.exists)
        if self.any_rank(batch is None):
            raise StopRequested
        draws = self.drawing.taken(step, prompts, batch)
        if self.drawing.curriculum:
            self.drawing.curriculum.see(gather_object(self.drawing.spreads(batch)))
        if drawn_ahead:
            self.ahead.taken()
            self._sync()
        if self.run.rollout.max_staleness and step < self.run.trainer.max_steps:
            self.ahead.start(step + 1, partial(self.drawing.draw, step + 1, self.drawing.prompts_of(step + 1)))
        self.guards.see_batch(batch)
        self.clock.rollout = time.perf_counter() - started - (self.clock.sync if drawn_ahead else 0.0)
        versions = {rollout.completion.policy_version for group in batch.groups for rollout in group.rollouts}
        if versions - {step - 1, step - 1 - self.run.rollout.max_staleness}:
            raise RuntimeError(f"rollouts of step {step} come from policy versions {sorted(versions)}")
        if self.run.rollout.max_staleness:
            self.stale = self.any_rank(bool(versions - {step - 1}))
            self.add_metrics({"mismatch/staleness": float(self.stale)})
        self._record(step, batch)
        self.add_metrics(batch_metrics(batch, step, self.run.rewards, self._sum_over_ranks))
        per_group = self.run.rollout.group_size * self.run.rollout.noises_per_completion
        self.num_painted = round(self._sum_over_ranks([num_painted(batch, per_group)])[0])
        if self.run.rollout.selects:
            self.add_metrics(selection_metrics(draws, self._sum_over_ranks))
            scores = gather_object(all_scores(batch))
            self.add_metrics(drawn_rewards(scores, self.run.rewards, self.run.rollout.noises_per_completion))
        means = gather_object(prompt_means(batch, self.run.rewards))  # of all ranks
        if self.summarise is not None:
            self.add_metrics(self.summarise(means))
        if self.head is not None:
            self.learn_head(batch)
        return draws

    def learn_head(self, batch: RolloutBatch) -> None:
        """The head's update on a batch, while the AR part is still the one that drew.

        Raises:
            GuardError, MismatchError: it was not made, and the guards do not go on without it.
        """
        started = time.perf_counter()
        metrics, error = self.head.learn(batch, self.step)
        self.add_metrics(metrics | {"time/head": time.perf_counter() - started})
        if error is not None:
            self.guards.on_head(self.step, error, metrics, self.state.log_history)

    def _record(self, step: int, batch: RolloutBatch) -> None:
        every, last = self.run.rollout.record_every_steps, step + self.run.trainer.num_iterations - 1
        if self.recorder and every and (step == 1 or last // every > (step - 1) // every):
            picked = gather_object(self.recorder.pick(step, batch))  # rank after rank: the order of the prompts
            if self.accelerator.is_main_process:
                self.recorder.write(step, picked)

    def _masked(self, prompt: Prompt) -> list[dict[str, Any]]:
        tokens = self.action_space
        row = masked_row(self.encoder.encode(prompt.text), tokens.start, max(tokens.num_tokens, 1), self.run.rewards)
        return [row] * self.num_generations

    def logprobs(
        self, model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, batch_size: int | None, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs `[B, T]` of the image tokens at the sampling temperature, and entropies `[B, T]` if asked for.

        TRL asks for the reference policy's, and in the loss for the policy's, which before the first update are also
        those of the policy that drew (`one_forward`).

        Args:
            model: policy or reference.
            ids: `[B, P + T]` prompts, padded on the left, and their image tokens.
            mask: `[B, P + T]`, 0 at padding.
            batch_size: rows of one forward; None: all.
            entropy: whether entropies are wanted.
        """
        chunk = batch_size or len(ids)
        outputs = []
        for start in range(0, len(ids), chunk):
            rows = slice(start, start + chunk)
            with self.accelerator.autocast():
                outputs.append(model(ids[rows], mask[rows], entropy=entropy))
        logprobs = torch.cat([output[0] for output in outputs])
        return logprobs, torch.cat([output[1] for output in outputs]) if entropy else None

    def one_forward(self) -> bool:
        """As the seam's, but DeepSpeed runs the optimiser inside the last backward pass: too early for the guards."""
        return super().one_forward() and not isinstance(self.run.trainer.parallel, DeepSpeedSection)

    def weigh(
        self, rollout_logprobs: torch.Tensor, old_logprobs: torch.Tensor, mask: torch.Tensor, replayed: torch.Tensor
    ) -> torch.Tensor:
        """Importance weights of one micro-batch, as the recipe bounds them."""
        section = self.run.trainer
        low, high = section.vllm_importance_sampling_clip_min, section.vllm_importance_sampling_clip_max
        mode = section.vllm_importance_sampling_mode
        weights = importance_weights(rollout_logprobs, old_logprobs, mask, mode=mode, low=low, high=high)
        of_images = replay_weights(rollout_logprobs, old_logprobs, mask, low=low, high=high)
        return torch.where(replayed[:, None], of_images, weights) if replayed.any() else weights

    def replayed_rows(self, num_rows: int) -> torch.Tensor:
        """The last groups of the step's rows."""
        first = num_rows - self.num_replayed * self.num_generations
        return torch.arange(num_rows, device=self.accelerator.device) >= first

    def see_rewards(self, rewards: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        """TRL's advantages `[B]` of this rank with the floor `trainer.min_group_std`, and what the rewards say of it.

        Args:
            rewards: `[N, R]`, of all ranks' rows and the rewards that are trained on; NaN where there is none.
            advantages: `[B]`, TRL's.
        """
        section, size = self.run.trainer, self.num_generations
        found, weights = rewards.double().cpu().numpy(), self.reward_weights.double().cpu().numpy()
        spreads = group_spreads(found, weights, size, section.multi_objective_aggregation)
        self.add_metrics(spread_metrics(spreads, section.min_group_std))
        floored = floored_advantages(
            self.accelerator.gather(advantages).double().cpu().numpy(),
            found,
            weights,
            size,
            scale=section.scale_rewards,
            aggregation=section.multi_objective_aggregation,
            floor=section.min_group_std,
        )
        first = self.accelerator.process_index * len(advantages)
        return torch.from_numpy(floored[first : first + len(advantages)]).to(advantages)

    def check_rollouts(
        self,
        rollout_logprobs: torch.Tensor,
        old_logprobs: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor,
        replayed: torch.Tensor,
    ) -> None:
        """Compare the log-probs of sampler and trainer `[B, T]` before the optimiser runs.

        Args:
            rollout_logprobs: of the sampler.
            old_logprobs: of the trainer.
            mask: 1 where a token counts.
            weights: what the loss makes of their ratio, `[B, T]` or `[B, 1]`.
            replayed: `[B]`, rows of earlier steps: older weights drew them, so they are not compared.

        Raises:
            MismatchError: they differ by more than `trainer.mismatch_bound`, and `guards.mismatch` is `stop`. Not where
                the rollouts are of older weights: what an update has changed is no fault of the sampler.
        """
        if self.run.rollout.replay:
            whole = weights.mean(1).masked_fill(~replayed, torch.nan)
            self.add_metrics(replay_metrics(self.accelerator.gather(whole)))
            mask = mask * ~replayed[:, None]
        measured = mismatch(self._sum_over_ranks(mismatch_sums(rollout_logprobs, old_logprobs, mask)))
        measured |= weight_metrics(self.accelerator.gather(counted_weights(weights, mask)))
        worst = largest_difference(rollout_logprobs, old_logprobs, mask)
        measured["mismatch/max_abs"] = self.accelerator.gather(worst).max().item()
        self.add_metrics(measured)
        self.guards.measured = measured
        if self.stale:
            return
        step = self.step
        try:
            check_mismatch(measured, self.run.trainer.mismatch_bound, step)
        except MismatchError as error:
            self.guards.on_mismatch(step, error, measured)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As transformers: loss and gradient of one micro-batch; the guards see every loss.

        The first one of a step waits for all of the above. The last one unblocks the optimiser, unless a guard throws
        the gradient away.
        """
        if self.learns_tokens:
            if band := self.run.trainer.entropy_band:
                last = next((line["entropy"] for line in reversed(self.state.log_history) if "entropy" in line), None)
                self.set_entropy_coefficient(band_coefficient(self.run.trainer.entropy_coef, band, last))
            loss = super().training_step(*args, **kwargs)
        else:
            self.take_batch(kwargs["inputs"] if "inputs" in kwargs else args[1])  # and the head learns from it
            loss = torch.zeros((), device=self.accelerator.device)
        self.guards.losses.append(loss)
        return loss

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's loss of one micro-batch, and in that of a step's last one the term of `trainer.text_kl`."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.text_kl is None or not self.accelerator.sync_gradients:
            return loss

        term = self.text_kl.measure(text_forward(model, self.accelerator), self.step)
        self.add_metrics({TEXT_KL: self.accelerator.reduce(term.detach(), reduction="mean").item()})
        return loss + self.text_kl.weight * term

    def see_gradient_norm(self, norm: Any) -> None:
        """Have the guards know the gradient norm before the optimiser runs."""
        self.guards.gradient_norm = norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL, under the project's metric names and with the time spent outside the rollouts."""
        if self.has_metrics():
            self.add_metrics(self.clock.metrics())
            self.add_metrics(totals(self.state.log_history, self.num_painted, self.clock.step))
            self.num_painted = 0  # further steps on the batch paint none
        self.rename_metrics(rename_selected if self.run.rollout.selects else rename)
        super().log(logs, start_time)

    # Between steps, and for all of them.

    def sync_evaluated_weights(self) -> None:
        """Publish the weights that evaluations measure, averaged or not (`trainer.ema.use`)."""
        self.ahead.wait()  # what is drawn ahead needs the weights that samplers and decoders have now
        self._publish(averaged=self.averaged is not None and self.run.trainer.ema.use == "averaged", measured=True)
        self.sync_again()

    def _sync(self) -> None:
        started = time.perf_counter()
        self._publish(averaged=False)
        self.clock.sync = time.perf_counter() - started

    def _publish(self, averaged: bool, measured: bool = False) -> None:
        head = self.head and (self.head.measured_weights() if measured else self.head.drawing_weights())
        with self.averaged.applied() if averaged else nullcontext():
            weights = None  # those that were published already
            if self.learns_tokens or not self._published_tokens:
                weights = self.accelerator.get_state_dict(self.model_wrapped)  # whole on rank 0, also when sharded
            if self.accelerator.is_main_process:
                if weights is not None and self.run.trainer.lora:
                    weights = merge_adapter(weights, self.run.trainer.lora)
                self.pipeline.sync_weights(weights, version=self.state.global_step, head=head)
            self._published_tokens = True
            self.accelerator.wait_for_everyone()

    def save_now(self) -> None:
        """Checkpoint the last finished step, unless there is one or nothing was done yet."""
        main = self.accelerator.is_main_process
        if self.any_rank(main and self.state.global_step > self.folder.newest_step()):
            self.save_checkpoint()

    def write_checkpoint(self, write: Callable[[], None]) -> None:
        """Write into the staging folder `args.output_dir`, then complete the checkpoint and move it into place.

        Raises:
            StorageError: the disk is full, for example; what was staged is removed, older checkpoints are untouched.
        """
        staging, step = Path(self.args.output_dir), self.state.global_step
        try:
            with storage_errors(self.folder.checkpoints / f"checkpoint-{step}"):
                self.wait_for_records()
                write()
                beside = {AVERAGED_FILE: self.averaged} if self.averaged else {}
                beside |= {REFERENCE_FILE: self.moving} if self.moving else {}
                whole = {file: weights.full() for file, weights in beside.items()}
                self.ahead.save(staging / f"checkpoint-{step}")
                self.drawing.save(staging / f"checkpoint-{step}", self.accelerator.is_main_process)
                self.accelerator.wait_for_everyone()
                if self.accelerator.is_main_process:
                    if self.head is not None:
                        self.head.save(staging / f"checkpoint-{step}")
                    for file, weights in whole.items():
                        save_file(weights, staging / f"checkpoint-{step}" / file)
                    score = checkpoint_score(self.state.log_history, self.run, step)
                    finish_checkpoint(staging, step, self.run.checkpoint.keep, self.run.checkpoint.keep_best, score)
        except Exception:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        self.accelerator.wait_for_everyone()

    def wait_for_records(self) -> None:
        """Until the recorded rollouts of all steps so far are on disk."""
        if self.recorder:
            self.recorder.wait()

    def any_rank(self, value: bool) -> bool:
        """Whether it is so on any rank; all ranks must ask."""
        return self._sum_over_ranks([float(value)])[0] > 0

    def _sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()


def _rollouts(_: list[str], trainer: ImageGRPOTrainer) -> dict[str, list]:
    """What TRL calls to have completions; which prompts they are of is `Drawing`'s to say."""
    return trainer.rollouts()
