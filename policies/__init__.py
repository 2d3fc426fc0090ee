"""Policies: BLIP3o-NEXT in the released layout, its prompt format and tokenizer, warm start, the tiny policy.

The names below load torch and diffusers only when first used.
"""

from importlib import import_module

_EXPORTS = {
    "BLIP3oNext": "policies.blip3o_next",
    "CheckpointError": "policies.config",
    "ImageTokens": "policies.config",
    "PromptEncoder": "policies.prompts",
    "PromptError": "policies.prompts",
    "VQSigLIP2": "policies.vision",
    "image_logprobs": "policies.logprobs",
    "image_tokens": "policies.config",
    "load_config": "policies.config",
    "position_ids": "policies.logprobs",
    "random_policy": "policies.architecture",
    "resolve_policy_path": "policies.config",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'policies' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
