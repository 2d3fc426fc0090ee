"""Options that a configuration sets and that cannot change anything in it, each with the reason in one sentence.

None of them is wrong, so none is refused; whoever set one should know. An option that has its default value is not
named. What follows from how a step is made here: with one optimiser step on every batch of rollouts the policy that
learns is the one that drew and their ratio is 1; and all completions have the same number of tokens.
"""

from __future__ import annotations

import math

from pydantic import BaseModel

from blip3o_grpo.configs.head import HeadSection
from blip3o_grpo.configs.schema import RunConfig
from blip3o_grpo.configs.training import OF_TOKENS, TrainerSection
from blip3o_grpo.configs.warmstart import WarmstartConfig


def inert_options(config: RunConfig) -> list[str]:
    """One sentence for each option of a run that is set and cannot act."""
    trainer, guards, evaluation = config.trainer, config.guards, config.evaluation
    each = trainer.multi_objective_aggregation == "normalize_then_sum"
    found = _losses(trainer)
    if each and "head" not in config.learn:  # whose advantages are divided by it all the same
        asked = (
            "multi_objective_aggregation: normalize_then_sum divides by the standard deviation in the group, and then "
        )
        found += _set(trainer, "trainer", "scale_rewards", asked + "by the batch's")
    elif not each and trainer.scale_rewards == "none":
        found += _set(trainer, "trainer", "min_group_std", "scale_rewards: none divides by no standard deviation")
    if trainer.lr_scheduler_type == "constant":
        found += _set(
            trainer, "trainer", "warmup_steps", "lr_scheduler_type: constant has none; write constant_with_warmup"
        )
    if guards.reward_collapse == "ignore":
        found += _set(guards, "guards", "reward_share", "guards.reward_collapse is ignore")
        if guards.no_spread == "ignore":
            found += _set(guards, "guards", "window_steps", "guards.reward_collapse and guards.no_spread are ignore")
    if guards.non_finite == "stop" and guards.mismatch == "stop":
        found += _set(
            guards, "guards", "max_skips", "guards.non_finite and guards.mismatch are stop, so no step is skipped"
        )
    if not guards.gold:
        found += _set(guards, "guards", "gold_fall", "guards.gold names no reward")
    if not trainer.use_adaptive_entropy:
        for key in ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target"):
            found += _set(trainer, "trainer", key, "use_adaptive_entropy is false")
    if not trainer.sync_ref_model:
        for key in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
            found += _set(trainer, "trainer", key, "sync_ref_model is false")
    elif trainer.ref_model_sync_steps >= trainer.max_steps:
        never = (
            f"ref_model_sync_steps={trainer.ref_model_sync_steps} are not over before the last of "
            f"max_steps={trainer.max_steps}"
        )
        found += _set(trainer, "trainer", "sync_ref_model", never)
    if trainer.beta == 0 and "tokens" in config.learn:
        found += _set(trainer, "trainer", "use_bias_correction_kl", "with beta=0 there is no KL")
        found += _set(
            config.warnings, "warnings", "kl_budget", "with trainer.beta=0 the KL to the start is not measured"
        )
    if config.rollout.guidance_scale == 1:
        found += _set(config.rollout, "rollout", "guidance_interval", "rollout.guidance_scale=1 is no guidance")
    if "head" not in config.learn:
        for key in HeadSection.model_fields:
            found += _set(config.head, "head", key, "learn does not name the head")
    if "tokens" not in config.learn:
        for key in OF_TOKENS:
            found += _set(trainer, "trainer", key, "learn does not name the tokens")
        never = "learn does not name the tokens, so the KL to the start is not measured"
        found += _set(config.warnings, "warnings", "kl_budget", never)
    if trainer.max_steps == trainer.num_iterations:
        found += _set(config.rollout, "rollout", "replay", "the run has one batch of rollouts, and none before it")
    if not config.rollout.record_every_steps:
        found += _set(config.rollout, "rollout", "record_images", "rollout.record_every_steps=0 records none")
    if all(reward.replicas for reward in config.rewards):
        found += _set(config.cluster, "cluster", "rewards", "every reward has replicas of its own")
    # 0 where steps are not evaluated; with gold, every step that is evaluated has a checkpoint
    if not guards.gold and math.lcm(evaluation.every_steps, config.checkpoint.every_steps) >= trainer.max_steps:
        never = (
            f"no checkpoint (every {config.checkpoint.every_steps} steps) is of a step that is evaluated (every "
            f"{evaluation.every_steps}), so none competes"
        )
        found += _set(config.checkpoint, "checkpoint", "keep_best", never)
    return found


def _losses(trainer: TrainerSection) -> list[str]:
    """Of the options that say what is learnt from a batch."""
    found, once = [], trainer.num_iterations == 1
    one = "every batch gets one optimiser step (num_iterations), so the ratio to the policy that drew is 1"
    if once and trainer.loss_type not in ("cispo", "sapo", "vespo"):  # those have none of them, or need epsilon_high
        for key in ("epsilon", "epsilon_high", "delta"):
            found += _set(trainer, "trainer", key, f"{one} and never clipped")
    if trainer.loss_type in ("grpo", "dr_grpo", "bnpo"):
        same = "all completions have the same length, so grpo, dr_grpo, dapo and bnpo are the same loss"
        found += _set(trainer, "trainer", "loss_type", same)
    elif once and trainer.loss_type in ("cispo", "sapo"):
        found += _set(trainer, "trainer", "loss_type", f"{one}, where its gradient is that of dapo")
    for loss in ("sapo", "vespo"):
        reason = f"loss_type is {trainer.loss_type}"
        if once and loss == trainer.loss_type == "sapo":
            reason = f"{one}, where sapo has the same gradient with any"
        if once and loss == "sapo" or loss != trainer.loss_type:
            for key in (key for key in TrainerSection.model_fields if key.startswith(f"{loss}_")):
                found += _set(trainer, "trainer", key, reason)
    # The other ways for a ratio of whole images to act on gradients: weights that differ from token to token.
    alike = trainer.vllm_importance_sampling_mode.startswith("sequence") and trainer.top_entropy_quantile == 1
    if once and alike and trainer.loss_type != "luspo" and not (trainer.beta and trainer.use_bias_correction_kl):
        found += _set(trainer, "trainer", "importance_sampling_level", f"{one}, of tokens and of images")
    return found


def inert_warmstart_options(config: WarmstartConfig) -> list[str]:
    """The same of a warm start."""
    found: list[str] = []
    if "ar" not in config.trains or (config.strategy == "sequential" and not config.ar_steps):
        for key in ("labels", "anchor_weight"):
            found += _set(config, "", key, "the AR part does not learn")
    if config.trains == ("ar",):
        for key in ("condition_dropout", "condition_noise"):
            found += _set(config, "", key, "the diffusion head does not learn")
    return found


def _set(section: BaseModel, name: str, key: str, reason: str) -> list[str]:
    """The sentence, if the key has another value than its default."""
    value = getattr(section, key)
    if value == type(section).model_fields[key].default:
        return []
    written = list(value) if isinstance(value, tuple) else value  # as in YAML
    if isinstance(value, BaseModel):
        written = value.model_dump(exclude_defaults=True) or "{}"
    return [f"{name}{'.' if name else ''}{key}={written} changes nothing: {reason}"]
