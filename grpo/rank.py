"""What one Ray Train worker does: load the AR part, build the trainer, resume where there is a checkpoint, train."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blip3o_grpo.training.trl_seams  # isort: skip  # noqa: F401
import ray.train
import torch
import transformers
from accelerate.utils import broadcast_object_list
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback
from trl import GRPOConfig

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.evaluation.callback import GridTracker, HeldoutCallback
from blip3o_grpo.evaluation.gold_watch import GoldWatch
from blip3o_grpo.evaluation.statistics import reward_metrics
from blip3o_grpo.policies import PromptEncoder, resolve_policy_path
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.policies.types import Policy
from blip3o_grpo.rollout import Prompt, RolloutPipeline, RolloutRecorder
from blip3o_grpo.rollout.texts import encode_texts, load_texts, text_file
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.locks import hold
from blip3o_grpo.run.stopping import StopRequested
from blip3o_grpo.run.trackers import PROJECT, finish, prepare, to_tensorboard, to_trackio, to_wandb, tracked_as
from blip3o_grpo.training.callbacks import MetricsFile, ProgressReporter
from blip3o_grpo.training.parallel import check_own_gpus, parallel_arguments
from blip3o_grpo.training.trainer import ImageGRPOTrainer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from blip3o_grpo.training.head.learner import HeadLearner

GONE_WITHIN_S = 60.0
"""How long a killed run's trainer may take to notice that its driver is gone."""


def make_args(config: RunConfig, num_tokens: int, folder: RunFolder) -> GRPOConfig:
    """TRL arguments of a run: whole groups per rank, every optimiser step on a whole batch of rollouts."""
    section = config.trainer
    share = config.rollout.learnt_per_step // config.cluster.trainers
    micro = section.micro_batch_size or share
    end = section.lr_scheduler_kwargs
    return GRPOConfig(
        output_dir=str(folder.staging),
        seed=config.seed,
        max_steps=section.max_steps,
        num_generations=config.rollout.learnt_group_size,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        max_completion_length=max(num_tokens, 1),  # TRL wants one
        temperature=config.rollout.temperature,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.lr_scheduler_type,
        lr_scheduler_kwargs=end.model_dump(exclude_none=True) if end else None,
        warmup_steps=section.warmup_steps,
        adam_beta1=section.adam_beta1,
        adam_beta2=section.adam_beta2,
        adam_epsilon=section.adam_epsilon,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        beta=0.0,  # the trainer sets the real one after __init__, together with the reference model
        use_bias_correction_kl=section.use_bias_correction_kl,
        num_iterations=section.num_iterations,
        importance_sampling_level=section.importance_sampling_level,
        epsilon=section.epsilon,
        epsilon_high=section.epsilon_high,
        delta=section.delta,
        loss_type=section.loss_type,
        sapo_temperature_pos=section.sapo_temperature_pos,
        sapo_temperature_neg=section.sapo_temperature_neg,
        vespo_k_pos=section.vespo_k_pos,
        vespo_lambda_pos=section.vespo_lambda_pos,
        vespo_k_neg=section.vespo_k_neg,
        vespo_lambda_neg=section.vespo_lambda_neg,
        off_policy_mask_threshold=section.off_policy_mask_threshold,
        top_entropy_quantile=section.top_entropy_quantile,
        entropy_coef=section.entropy_coef,
        use_adaptive_entropy=section.use_adaptive_entropy,
        entropy_coef_min=section.entropy_coef_min,
        entropy_coef_max=section.entropy_coef_max,
        entropy_coef_delta=section.entropy_coef_delta,
        entropy_target=section.entropy_target,
        scale_rewards=section.scale_rewards,
        multi_objective_aggregation=section.multi_objective_aggregation,
        reward_weights=[reward.weight for reward in config.rewards if reward.weight],
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=section.vllm_importance_sampling_mode,
        vllm_importance_sampling_clip_max=section.vllm_importance_sampling_clip_max,
        vllm_importance_sampling_clip_min=section.vllm_importance_sampling_clip_min,
        mask_truncated_completions=False,  # image completions have no end token
        shuffle_dataset=False,  # the schedule is already in order
        bf16=config.policy.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.checkpoint.every_steps,
        logging_steps=1,
        report_to=[name for name in config.report_to if name != "tensorboard"],
        run_name=tracked_as(folder)[1] if set(config.report_to) - {"tensorboard"} else None,
        project=PROJECT,  # trackio's
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=torch.cuda.is_available(),
        **parallel_arguments(config),
    )


def train_worker(job: dict[str, Any]) -> None:
    """Train on one rank; `job` holds the arguments of `run_training` and `threads`."""
    config: RunConfig = job["config"]
    torch.set_num_threads(job["threads"])
    transformers.utils.logging.disable_progress_bar()
    if config.cluster.trainers > 1 and config.cluster.gpus_per_trainer:
        check_own_gpus()
    if ray.train.get_context().get_world_rank() == 0:
        job["pipeline"].connect_trainer()
    run_training(config, job["prompts"], job["heldout"], job["pipeline"], job["queue"])


def run_training(
    config: RunConfig,
    prompts: Sequence[Prompt],
    heldout: Sequence[Prompt],
    pipeline: RolloutPipeline,
    queue: Any = None,
) -> ImageGRPOTrainer:
    """Train from the newest complete checkpoint of the run folder (or the starting policy) to the last step.

    A requested stop ends it earlier, with a checkpoint.
    """
    folder = RunFolder(config.run_dir)
    # What learns stays in float32 (autocast computes in bfloat16); a base that LoRA freezes need not.
    dtype = getattr(torch, config.policy.dtype) if config.trainer.lora else torch.float32
    path = resolve_policy_path(config.policy.path)
    policy = KINDS[config.policy.type].load(path, "reader", dtype=dtype)
    policy.ar.requires_grad_(True).train()
    if "wandb" in config.report_to:
        prepare(folder)
    trainer = ImageGRPOTrainer(
        policy.ar,
        config=config,
        args=make_args(config, policy.image_tokens.num_tokens, folder),
        encoder=policy.prompts,
        image_tokens=policy.image_tokens,
        prompts=prompts,
        pipeline=pipeline,
        recorder=RolloutRecorder(
            folder.path,
            {reward.name: reward.weight for reward in config.rewards},
            all_images=config.rollout.record_images == "all",
        ),
        texts=replayed_texts(config, policy.prompts),
        summarise=reward_metrics,
        head=partial(learning_head, policy, path, config) if "head" in config.learn else None,
        callbacks=[MetricsFile(folder.metrics), *([ProgressReporter(queue)] if queue is not None else [])],
    )
    main = trainer.is_world_process_zero()
    with hold(folder.trainer_lock, GONE_WITHIN_S) if main else nullcontext():
        resume = checkpoint_for_all_ranks(folder, main, queue)
        done, sends = folder.newest_step(), []
        if "tensorboard" in config.report_to and main:
            # A writer of our own, because transformers' would show repeated steps twice after a resume.
            writer = SummaryWriter(str(folder.tensorboard), purge_step=done + 1 if done else 0)
            trainer.add_callback(TensorBoardCallback(writer))
            sends.append(to_tensorboard(writer))
        sends += [send for name, send in (("wandb", to_wandb), ("trackio", to_trackio)) if name in config.report_to]
        if sends:
            trainer.add_callback(GridTracker(folder, sends))  # after the callbacks that open the trackers
        if config.evaluation.every_steps:
            trainer.add_callback(
                HeldoutCallback(
                    config,
                    pipeline,
                    heldout,
                    folder,
                    sync_weights=trainer.sync_evaluated_weights,
                    add_metrics=trainer.add_metrics,
                    tell=queue.put if queue is not None else lambda message: None,
                )
            )
        if config.guards.gold:
            trainer.add_callback(
                GoldWatch(
                    config,
                    folder,
                    any_rank=trainer.any_rank,
                    save_rollouts=trainer.guards.save_evidence,
                    tell=partial(notify, queue),
                )
            )
        if resume:
            trainer.ahead.load(resume)
            trainer.drawing.load(resume)
            if trainer.head is not None:
                trainer.head.load(resume)
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except StopRequested:
            trainer.save_now()
        finally:
            if main:
                finish(config.report_to)
            trainer.wait_for_records()
    return trainer


def replayed_texts(config: RunConfig, encoder: PromptEncoder) -> list[list[int]]:
    """Token ids of the texts of `trainer.text_kl`; none without it."""
    section = config.trainer.text_kl
    return encode_texts(load_texts(section.texts), encoder, str(text_file(section.texts))) if section else []


def learning_head(policy: Policy, path: Path, config: RunConfig, accelerator: Accelerator) -> HeadLearner:
    """The diffusion head of the checkpoint at `path`, beside the AR part of `policy`."""
    from blip3o_grpo.training.head.learner import HeadLearner  # imports diffusers

    head = KINDS[config.policy.type].load(path, "head", device=accelerator.device)
    return HeadLearner(head, policy.conditions, config, accelerator)


def checkpoint_for_all_ranks(folder: RunFolder, main: bool, queue: Any) -> Path | None:
    """What the main rank found complete; its warnings go to the driver's terminal."""
    if main:
        folder.clean()
    return broadcast_object_list([folder.verified_checkpoint(partial(notify, queue)) if main else None])[0]


def notify(queue: Any, text: str) -> None:
    """Have the driver's terminal show a sentence, if there is one."""
    if queue is not None:
        queue.put({"notice": text})
