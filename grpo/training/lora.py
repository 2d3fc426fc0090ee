"""LoRA runs: PEFT's adapters learn, everyone else sees plain weights.

Samplers, decoders and the saved policy get the merged weights. The base is never overwritten: merging in place and
taking the adapter out again would leave its rounding errors behind at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen3ForCausalLM

from blip3o_grpo.configs.head import HeadLoRASection
from blip3o_grpo.configs.training import LoRASection

PREFIX = "base_model.model."
ADAPTER_FILE = "adapter_model.safetensors"


def peft_config(section: LoRASection) -> LoraConfig:
    """PEFT's form of the section. No dropout: sampling and training log-probs must be of the same policy."""
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        target_modules=list(section.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def merge_adapter(state: Mapping[str, torch.Tensor], section: LoRASection | HeadLoRASection) -> dict[str, torch.Tensor]:
    """State dict of the plain model from the (gathered) one of the PEFT model: W + alpha / rank * B A.

    Computed in float32 and returned in the base's dtype; tensors without an adapter are passed on as they are.
    """
    merged = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        stem, is_base, rest = name.partition(".base_layer.")
        if is_base and rest == "weight":
            down, up = (state[f"{stem}.lora_{half}.default.weight"].float() for half in "AB")
            tensor = (tensor.float() + section.alpha / section.rank * (up @ down)).to(tensor.dtype)
        merged[name.removeprefix(PREFIX).replace(".base_layer.", ".")] = tensor
    return merged


def load_adapter(
    ar: Qwen3ForCausalLM, section: LoRASection, checkpoint: Path, averaged: Path | None
) -> Qwen3ForCausalLM:
    """`ar` with a checkpoint's adapter merged into it; `averaged` names a file of averaged adapter weights to use."""
    model = get_peft_model(ar, peft_config(section))
    set_peft_model_state_dict(model, load_file(checkpoint / ADAPTER_FILE))
    if averaged is not None:
        unexpected = model.load_state_dict(load_file(averaged), strict=False).unexpected_keys
        if unexpected:
            raise ValueError(f"{averaged}: not of this adapter: {', '.join(unexpected[:5])}")
    return model.merge_and_unload()
