"""Commands that know BLIP3o-NEXT alone refuse a recipe for another policy in one line."""

from __future__ import annotations

from blip3o_grpo.configs.loader import ConfigError
from blip3o_grpo.configs.schema import RunConfig


def require_tokens(config: RunConfig, command: str) -> None:
    """Refuse a run whose policy writes no image tokens.

    Args:
        config: the run.
        command: of `blip3o-grpo`.

    Raises:
        ConfigError: naming the key.
    """
    if config.policy.type != "blip3o_next":
        raise ConfigError(
            f"policy.type={config.policy.type}: {command} knows policies of image tokens only; give a recipe with "
            "policy.type: blip3o_next"
        )
