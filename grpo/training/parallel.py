"""How ranks share the model: the section `trainer.parallel` in the words of accelerate, and the frozen reference."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.configs.training import DDPSection, DeepSpeedSection, FSDP2Section
from blip3o_grpo.rollout.types import RolloutError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

LAYER = "Qwen3DecoderLayer"


def parallel_arguments(config: RunConfig) -> dict[str, Any]:
    """Arguments of `transformers.TrainingArguments` for sharding and activation checkpointing."""
    section, checkpointing = config.trainer.parallel, config.trainer.gradient_checkpointing
    if isinstance(section, FSDP2Section):
        sharding = {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": [LAYER],
            "reshard_after_forward": section.reshard_after_forward,
            "cpu_offload": section.cpu_offload,
            "state_dict_type": "FULL_STATE_DICT",  # checkpoints hold model.safetensors, as without sharding
        }
        # transformers' checkpointing, not accelerate's: that one puts its wrapper's name into every parameter's name.
        return {"fsdp": True, "fsdp_config": sharding, "gradient_checkpointing": checkpointing}
    if isinstance(section, DeepSpeedSection):
        return {"deepspeed": deepspeed_config(section), "gradient_checkpointing": checkpointing}
    return {"gradient_checkpointing": checkpointing}


def deepspeed_config(section: DeepSpeedSection) -> dict[str, Any]:
    """DeepSpeed's JSON for the section; "auto" values are filled in by transformers from its own arguments."""
    zero: dict[str, Any] = {"stage": section.zero_stage, "overlap_comm": True, "contiguous_gradients": True}
    if section.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if section.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True  # weights are gathered for samplers and checkpoints
        if section.offload_weights:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def check_parallel(config: RunConfig) -> None:
    """Refuse what accelerate would ignore or fail on after the models are loaded.

    Raises:
        ConfigError: sharding without GPUs, DeepSpeed that is not installed or cannot do what is asked.
    """
    section, trainer = config.trainer.parallel, config.trainer
    if isinstance(section, DDPSection):
        return
    if not config.cluster.gpus_per_trainer:
        raise ConfigError(
            f"trainer.parallel.type={section.type} needs GPUs (cluster.gpus_per_trainer is 0): accelerate shards on "
            "accelerators only; leave it out on CPUs"
        )
    if isinstance(section, DeepSpeedSection):
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError("trainer.parallel.type: deepspeed is not installed here; `pip install '.[deepspeed]'`")
        if trainer.ema:
            raise ConfigError("trainer.ema: not with trainer.parallel.type=deepspeed, which hides its weights")


def check_own_gpus() -> None:
    """Have every rank tell its GPU to all others, by gloo: NCCL itself would fail in many words. Called on every rank.

    Raises:
        RolloutError: two ranks are on one GPU.
    """
    import ray
    import torch.distributed as dist

    context = ray.get_runtime_context()
    mine = f"{', '.join(context.get_accelerator_ids()['GPU'])} of node {context.get_node_id()[:8]}"
    gpus: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(gpus, mine, group=dist.new_group(backend="gloo"))
    check_distinct(gpus)


def check_distinct(gpus: Sequence[str]) -> None:
    """Refuse ranks that share a GPU.

    Args:
        gpus: of each rank, in words.

    Raises:
        RolloutError: naming the ranks and the setting that helps.
    """
    for gpu in dict.fromkeys(gpus):
        ranks = [str(rank) for rank, other in enumerate(gpus) if other == gpu]
        if len(ranks) > 1:
            raise RolloutError(
                f"trainer ranks {' and '.join(ranks)} were placed on the same GPU ({gpu}), which NCCL refuses; "
                "set cluster.gpus_per_trainer=1"
            )


def prepare_reference(reference: nn.Module, accelerator: Accelerator, config: RunConfig) -> nn.Module:
    """The frozen reference policy on its device, sharded like the policy that learns."""
    if isinstance(config.trainer.parallel, FSDP2Section):
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        return fsdp2_prepare_model(accelerator, reference)
    if isinstance(config.trainer.parallel, DeepSpeedSection):
        from blip3o_grpo.training.trl_seams import prepare_deepspeed

        return prepare_deepspeed(reference, accelerator)
    return accelerator.prepare_model(reference, evaluation_mode=True)
