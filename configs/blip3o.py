"""What a recipe for BLIP3-o must not say: it has no tokens to sample, so nothing asks for options of sampling them.

Refused rather than named as idle: whoever sets them means another policy.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from blip3o_grpo.configs.training import OF_TOKENS

NO_TOKENS = "policy.type=blip3o samples no tokens"
IDLE = {
    "rollout": ("temperature", "enforce_eager", "decoder"),
    "evaluation": ("temperature", "top_p", "top_k"),
    "cluster": ("samplers", "gpus_per_sampler", "weight_sync"),
    "trainer": (*OF_TOKENS, "sync_ref_model"),
}
"""Keys by section that only samplers, vLLM, the tokens' update or SANA's decoder ask for."""
INSTEAD = {"learning_rate", "micro_batch_size", "max_grad_norm", "lora"}
"""Of these the section `head` has its own."""


def check_blip3o(config: Any) -> None:
    """Refuse what BLIP3-o has no use for, and what its head cannot learn from.

    Args:
        config: the run, a `RunConfig` (whose module imports this one).

    Raises:
        ValueError: naming the first such key and what to give instead.
    """
    if config.learn != ("head",):
        raise ValueError(f"learn={list(config.learn)}: {NO_TOKENS}; give learn: [head]")
    for name, keys in IDLE.items():
        section = getattr(config, name)
        for key in keys:
            if getattr(section, key) != type(section).model_fields[key].default:
                hint = f"give head.{key}" if name == "trainer" and key in INSTEAD else "leave it out"
                raise ValueError(f"{name}.{key}={_written(getattr(section, key))}: {NO_TOKENS}; {hint}")
    rollout = config.rollout
    if rollout.noises_per_completion != 1:
        raise ValueError(
            f"rollout.noises_per_completion={rollout.noises_per_completion}: {NO_TOKENS}, so all images of a prompt "
            "differ by their noise; leave it out and give rollout.group_size"
        )
    if rollout.noise != "independent":
        raise ValueError(
            f"rollout.noise={rollout.noise}: {NO_TOKENS}, so all images of a prompt would be the same one; give "
            "rollout.noise: independent"
        )
    if config.head.credit != "shared":
        raise ValueError(
            f"head.credit={config.head.credit}: {NO_TOKENS} that an image's reward could be divided with; give "
            "head.credit: shared"
        )


def _written(value: object) -> object:
    return value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value
