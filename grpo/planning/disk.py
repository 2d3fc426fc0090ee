"""Is there room for a run's checkpoints? Known before anything starts, from the shapes in the policy's config."""

from __future__ import annotations

from pathlib import Path

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.atomic import require_room
from blip3o_grpo.configs.training import DeepSpeedSection, FSDP2Section
from blip3o_grpo.planning.footprint import head_is_averaged, num_adapter_values, num_head_values
from blip3o_grpo.planning.pictures import BYTES_PER_PIXEL
from blip3o_grpo.policies.kinds import KINDS
from blip3o_grpo.run.folder import RunFolder

FLOAT = 4
MOMENTS = 2
"""Values that Adam keeps per weight."""


def checkpoint_bytes(config: RunConfig, policy_path: Path) -> int:
    """Bytes of one checkpoint: what learns, its optimiser state and average, a moving reference, pictures drawn ahead.

    Small files are not counted.
    """
    kind = KINDS[config.policy.type]
    policy = kind.shapes(policy_path)
    section = config.trainer
    learning = sum(parameter.numel() for parameter in policy.ar.parameters())
    if section.lora:
        learning = num_adapter_values(policy, config)
    moments = MOMENTS if "tokens" in config.learn else 0  # an AR part that does not learn has none
    values = 1 + moments + bool(section.ema) + section.sync_ref_model
    head = num_head_values(policy, config) * (1 + MOMENTS + bool(section.ema) + head_is_averaged(config))
    if isinstance(section.parallel, FSDP2Section | DeepSpeedSection):
        values += 1  # their own copy of the weights, beside model.safetensors
    ahead = config.rollout.max_staleness * config.rollout.images_per_step
    return (learning * values + head) * FLOAT + ahead * kind.image_side(policy_path) ** 2 * BYTES_PER_PIXEL


def check_room(config: RunConfig, folder: RunFolder, policy_path: Path) -> None:
    """Refuse a run whose checkpoints and final policy the disk cannot hold.

    Raises:
        StorageError: naming what is needed and what is free.
    """
    size = checkpoint_bytes(config, policy_path)
    existing = len(list(folder.checkpoints.glob("checkpoint-*")))
    stay = config.checkpoint.keep + config.checkpoint.keep_best + 1  # one more while it is written
    policy = sum(file.stat().st_size for file in policy_path.rglob("*") if file.is_file())
    needed = max(stay - existing, 1) * size + policy
    what = f"up to {stay} checkpoints of {size / 1e9:.2f} GB and the policy"
    require_room(folder.path, needed, f"{what}; free some, or lower checkpoint.keep or keep_best")
