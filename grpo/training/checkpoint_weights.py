"""What a checkpoint's weights are to everyone who does not train: a plain policy.

RUN/checkpoints/checkpoint-N holds `model.safetensors`, or PEFT's adapter where LoRA trains, and with `trainer.ema` the
averages of whatever learns. Where the diffusion head learns, its weights lie beside them under names of their own.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen3ForCausalLM

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.policies.blip3o_next.checkpoint import Weights, load_part
from blip3o_grpo.policies.blip3o_next.decoding import load_head
from blip3o_grpo.policies.blip3o_next.tied import load_weights
from blip3o_grpo.policies.types import Policy
from blip3o_grpo.training.averaging import FILE as AVERAGED_FILE
from blip3o_grpo.training.lora import load_adapter


def load_trained(ar: Qwen3ForCausalLM, checkpoint: Path, config: RunConfig) -> Qwen3ForCausalLM:
    """The starting policy's AR part `ar` with a checkpoint's weights: those that `trainer.ema.use` names.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen keys.
    """
    section = config.trainer
    averaged = checkpoint / AVERAGED_FILE if section.ema and section.ema.use == "averaged" else None
    if section.lora:
        return load_adapter(ar, section.lora, checkpoint, averaged)
    load_part(Weights(checkpoint), "ar", ar)
    if averaged is not None:
        load_weights(ar, load_file(averaged))
    return ar


def load_trained_head(policy: Policy, checkpoint: Path, config: RunConfig) -> dict[str, torch.Tensor]:
    """Give the starting policy the head of a checkpoint: the one that `trainer.ema.use` names.

    Returns:
        Its weights by `connector.NAME` and so on.
    """
    from blip3o_grpo.training.head.weights import AVERAGED_FILE, FILE, head_of, trained_head  # imports diffusers

    ema = config.trainer.ema
    file = checkpoint / (AVERAGED_FILE if ema and ema.use == "averaged" else FILE)
    weights = trained_head(copy.deepcopy(head_of(policy)), file, config.head.lora)
    load_head(policy, weights)
    return weights
