"""The rough variant of the tiny policy: the same tokens, painted by a head that was trained for few steps.

The finished head paints exactly what the tokens say, so RL has nothing to teach it. This one began anew, aligned as the
finished one was, and stopped early: right tokens are read at .6 to .8.
"""

from __future__ import annotations

from pathlib import Path

import torch

from blip3o_grpo.policies.blip3o_next.hub import diffusion_folder
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext


def with_new_head(path: Path, folder: Path, seed: int = 0) -> Path:
    """The policy at `path` with connector and SANA as they are before any training, in `folder`."""
    policy = BLIP3oNext.from_pretrained(path, parts=("ar", "head", "vision"))
    torch.manual_seed(seed)
    new = BLIP3oNext(policy.config, diffusion_folder(path, policy.config.diffusion_name_or_path), ("head",), None)
    policy.connector, policy.sana = new.connector, new.sana
    policy.save_pretrained(folder)
    return folder
