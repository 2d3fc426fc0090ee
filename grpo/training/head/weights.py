"""The head's weights by their released names, whether all of them learn or adapters do."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn

from blip3o_grpo.configs.head import LORA_TARGETS, HeadLoRASection
from blip3o_grpo.policies.blip3o_next.denoising import Head
from blip3o_grpo.training.lora import merge_adapter

FILE = "head.safetensors"
"""In a checkpoint: the parameters that learn."""
AVERAGED_FILE = "head_averaged.safetensors"
"""Their averages, with `trainer.ema`."""


def head_of(policy: Head) -> nn.ModuleDict:
    """The diffusion head of a policy as one module, with the released names."""
    return nn.ModuleDict(policy.head_parts())


def adapt(head: nn.ModuleDict, section: HeadLoRASection | None) -> None:
    """Freeze the transformer and give its attention adapters, in place; without a section nothing happens."""
    if section is None:
        return
    transformer = next(module for name, module in head.items() if name != "connector")
    transformer.requires_grad_(False)
    options = LoraConfig(
        r=section.rank, lora_alpha=section.alpha, target_modules=LORA_TARGETS, lora_dropout=0.0, bias="none"
    )
    inject_adapter_in_model(options, transformer)


def whole_weights(head: nn.ModuleDict, section: HeadLoRASection | None) -> dict[str, torch.Tensor]:
    """Every tensor of the head by its released name, adapters merged."""
    state = head.state_dict()
    return state if section is None else merge_adapter(state, section)


def trained_head(head: nn.ModuleDict, file: Path, section: HeadLoRASection | None) -> dict[str, torch.Tensor]:
    """The weights that a checkpoint's `file` makes of the starting policy's head, by released names.

    Args:
        head: a copy of the starting one; it is changed.
        file: what `HeadLearner.save` wrote of the parameters that learn.
    """
    adapt(head, section)
    unexpected = head.load_state_dict(load_file(file), strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"{file}: not of this head: {', '.join(unexpected[:5])}")
    return whole_weights(head, section)
