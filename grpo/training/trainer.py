"""TRL's `GRPOTrainer` on image tokens, joined to our rollouts at four seams; the algorithm itself stays TRL's.

1. `rollout_func`: groups come from a `RolloutPipeline`; their scores travel as extra fields, and each trained reward is
   a TRL reward function that picks up its own column. TRL never sees rewards of weight 0: their columns would count
   as "scorable" where no trained reward applies, and change the scale of the advantages.
2. `use_vllm` and `vllm_generation`, set after `__init__`: switch on TRL's weight sync before every rollout and its
   importance-sampling correction, without TRL's own engine.
3. The model's forward returns log-probabilities over the image vocabulary only. It is still called through the wrapped
   module, so DDP sees it.
4. `beta` and `ref_model`, set after `__init__`: TRL would load the reference by name, which a released checkpoint
   folder does not allow. With LoRA there is no second model: TRL switches the adapter off.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blip3o_grpo.training.trl_seams  # isort: skip  # noqa: F401
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import save_file
from transformers import PrinterCallback, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import storage_errors
from blip3o_grpo.policies import ImageTokens, PromptEncoder, image_logprobs
from blip3o_grpo.rollout import Prompt, RolloutGroup
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.metrics import rename
from blip3o_grpo.run.retention import checkpoint_score
from blip3o_grpo.run.stopping import StopRequested, interruptible
from blip3o_grpo.training.averaging import FILE as AVERAGED_FILE
from blip3o_grpo.training.averaging import AveragedWeights
from blip3o_grpo.training.callbacks import StopAfterStep
from blip3o_grpo.training.guards import Guards
from blip3o_grpo.training.lora import merge_adapter, peft_config
from blip3o_grpo.training.mismatch import MismatchError, check_mismatch, mismatch, mismatch_sums
from blip3o_grpo.training.parallel import prepare_reference
from blip3o_grpo.training.rows import group_rows, masked_row, reward_column
from blip3o_grpo.training.schedule import prompt_schedule
from blip3o_grpo.training.step_metrics import StepClock, batch_metrics

if TYPE_CHECKING:
    from blip3o_grpo.rollout import RolloutPipeline, RolloutRecorder


class ImageGRPOTrainer(GRPOTrainer):
    """One rank of the training; every rank collects the groups of its own prompts.

    Args:
        ar: the AR part that learns. `reference` of the KL term is a copy of it as given.
        config: the run.
        args: TRL arguments (see `blip3o_grpo.rank.make_args`); whole groups per rank, one optimiser step per batch.
        encoder: prompt format; its tokenizer is TRL's processing class.
        image_tokens: the action space.
        prompts: training prompts; `prompt_schedule` says which step sees which.
        pipeline: anything with `collect` and `sync_weights` of `rollout.RolloutPipeline`.
        recorder: keeps each group's best and worst image, of all ranks.
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
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.run = config
        self.encoder = encoder
        self.action_space = image_tokens
        self.prompts = prompts
        self.pipeline = pipeline
        self.recorder = recorder
        self.clock = StepClock()
        self._pending: list[Prompt] = []
        self.folder = RunFolder(config.run_dir)
        self.guards = Guards(self, self.folder.failures)
        section = config.trainer
        reference = copy.deepcopy(ar) if section.beta and not section.lora else None
        self.averaged = AveragedWeights(section.ema.decay, self.folder.checkpoints) if section.ema else None
        schedule = prompt_schedule(len(prompts), config.rollout.prompts_per_step, config.trainer.max_steps, config.seed)
        super().__init__(
            model=ar,
            reward_funcs=[reward_column(reward.name) for reward in config.rewards if reward.weight],
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [prompts[i].text for i in schedule], "index": schedule}),
            processing_class=encoder.tokenizer,
            rollout_func=_collect,
            peft_config=peft_config(section.lora) if section.lora else None,
            callbacks=[
                self.clock,
                *([self.averaged] if self.averaged else []),
                *callbacks,
                self.guards,  # after the callback that writes the metrics
                StopAfterStep(lambda: self.any_rank(self.folder.stop.exists())),
            ],
        )
        self.remove_callback(PrinterCallback)
        self.use_vllm, self.vllm_generation, self._last_loaded_step = True, self, -1  # TRL calls our `sync_weights`
        self.model.forward = self._image_forward(ar)  # with LoRA, `ar` holds the adapters
        self.beta = section.beta
        if reference is not None:
            reference.requires_grad_(False).eval()
            reference.forward = self._image_forward(reference)
            self.ref_model = prepare_reference(reference, self.accelerator, config)

    def _image_forward(self, ar: Qwen3ForCausalLM) -> Callable:
        """Forward of a model that is asked for nothing but image-token log-probs (and their entropy)."""

        def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, entropy: bool = False) -> tuple:
            return image_logprobs(ar, input_ids, attention_mask, self.action_space, self.temperature, entropy)

        return forward

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
        """Log-probs `[B, T]` of the image tokens at the sampling temperature, in chunks of `batch_size` rows."""
        chunk = batch_size or len(input_ids)
        outputs = []
        for start in range(0, len(input_ids), chunk):
            rows = slice(start, start + chunk)
            with self.accelerator.autocast():
                outputs.append(model(input_ids[rows], attention_mask[rows], entropy=compute_entropy))
        logprobs = torch.cat([output[0] for output in outputs])
        return logprobs, torch.cat([output[1] for output in outputs]) if compute_entropy else None, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._pending = [self.prompts[row["index"]] for row in inputs[:: self.num_generations]]
        batch = super()._generate_and_score_completions(inputs)
        self._check_mismatch(batch)
        return batch

    def sync_weights(self) -> None:
        """Publish the current weights to samplers and decoders; TRL calls it before each rollout, on every rank."""
        self._publish(averaged=False)
        self._last_loaded_step = self.state.global_step

    def sync_evaluated_weights(self) -> None:
        """Publish the weights that evaluations measure, averaged or not (`trainer.ema.use`)."""
        self._publish(averaged=self.averaged is not None and self.run.trainer.ema.use == "averaged")
        self._last_loaded_step = -1  # the next rollout must fetch its own

    def _publish(self, averaged: bool) -> None:
        with self.averaged.applied() if averaged else nullcontext():
            weights = self.accelerator.get_state_dict(self.model_wrapped)  # whole on rank 0, also when sharded
            if self.accelerator.is_main_process:
                if self.run.trainer.lora:
                    weights = merge_adapter(weights, self.run.trainer.lora)
                self.pipeline.sync_weights(weights, version=self.state.global_step)
            self.accelerator.wait_for_everyone()

    def collect(self) -> dict[str, list]:
        """Rollouts of this step's prompts in TRL's form: flat lists, member after member, group after group.

        A group that was dropped (`on_error: skip`) keeps its place with every token masked and no reward, so it adds
        nothing to loss, advantages, KL or metrics of the others.

        Raises:
            StopRequested: on all ranks, once one of them has seen the request.
        """
        started = time.perf_counter()
        version = self.state.global_step
        batch = interruptible(
            lambda: self.pipeline.collect(self._pending, step=version, turn=self.accelerator.process_index),
            self.folder.stop.exists,
        )
        if self.any_rank(batch is None):
            raise StopRequested
        self.guards.batch = batch
        self.clock.rollout = time.perf_counter() - started
        versions = {rollout.completion.policy_version for group in batch.groups for rollout in group.rollouts}
        if versions - {version}:
            raise RuntimeError(f"rollouts of step {version} come from policy versions {sorted(versions)}")
        if self.recorder and self._record_now(version):
            picked = gather_object(self.recorder.pick(version, batch))  # rank after rank: the order of the prompts
            if self.accelerator.is_main_process:
                self.recorder.write(version, picked)
        self.add_metrics(batch_metrics(batch, version, self.run.rewards, self._sum_over_ranks))
        groups = {group.prompt.id: group for group in batch.groups}
        rows = [row for prompt in self._pending for row in self._rows(prompt, groups.get(prompt.id))]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _record_now(self, step: int) -> bool:
        every = self.run.rollout.record_every_steps
        return bool(every) and step % every == 0

    def _rows(self, prompt: Prompt, group: RolloutGroup | None) -> list[dict[str, Any]]:
        if group is not None:
            return group_rows(group, self.run.rewards)
        tokens = self.action_space
        row = masked_row(self.encoder.encode(prompt.text), tokens.start, tokens.num_tokens, self.run.rewards)
        return [row] * self.num_generations

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Log these values with the current step."""
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)

    def _check_mismatch(self, batch: dict[str, Any]) -> None:
        measured = mismatch(self._sum_over_ranks(mismatch_sums(batch)))
        self.add_metrics(measured)
        self.guards.measured = measured
        try:
            check_mismatch(measured, self.run.trainer.mismatch_bound, self.state.global_step)
        except MismatchError as error:
            self.guards.on_mismatch(error, measured)

    def any_rank(self, value: bool) -> bool:
        """Whether it is so on any rank; all ranks must ask."""
        return self._sum_over_ranks([float(value)])[0] > 0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As transformers; the guards see every loss."""
        loss = super().training_step(*args, **kwargs)
        self.guards.losses.append(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        self.guards.gradient_norm = super()._get_grad_norm(*args, **kwargs)
        return self.guards.gradient_norm

    def _sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL, under the project's metric names and with the time spent outside the rollouts."""
        if self._metrics["train"]:
            self.add_metrics(self.clock.metrics())
        named = {rename(name): values for name, values in self._metrics["train"].items()}
        self._metrics["train"].clear()
        self._metrics["train"].update({name: values for name, values in named.items() if name})
        super().log(logs, start_time)

    def save_now(self) -> None:
        """Checkpoint the last finished step, unless there is one or nothing was done yet."""
        main = self.accelerator.is_main_process
        if self.any_rank(main and self.state.global_step > self.folder.newest_step()):
            self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write into the staging folder `args.output_dir`, then complete the checkpoint and move it into place.

        Raises:
            StorageError: the disk is full, for example; what was staged is removed, older checkpoints are untouched.
        """
        staging, step = Path(self.args.output_dir), self.state.global_step
        try:
            with storage_errors(self.folder.checkpoints / f"checkpoint-{step}"):
                super()._save_checkpoint(model, trial)
                averages = self.averaged.full() if self.averaged else {}
                self.accelerator.wait_for_everyone()
                if self.accelerator.is_main_process:
                    if averages:
                        save_file(averages, staging / f"checkpoint-{step}" / AVERAGED_FILE)
                    score = checkpoint_score(self.state.log_history, self.run, step)
                    finish_checkpoint(staging, step, self.run.checkpoint.keep, self.run.checkpoint.keep_best, score)
        except Exception:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card per checkpoint: the run folder describes itself."""


def _collect(prompts: list[str], trainer: ImageGRPOTrainer) -> dict[str, list]:
    return trainer.collect()
