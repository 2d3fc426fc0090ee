"""Fixtures: a tiny policy with random weights, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip3o_grpo.policies import BLIP3oNext, random_policy
from scripts.make_full_size import make


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random checkpoint in the released layout."""
    return random_policy(tmp_path_factory.mktemp("policy"), seed=3)


@pytest.fixture(scope="session")
def policy(folder: Path) -> BLIP3oNext:
    """The checkpoint with all its parts."""
    return BLIP3oNext.from_pretrained(folder, parts=("ar", "head", "vision"))


@pytest.fixture(scope="session")
def written(policy: BLIP3oNext) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask `[3, L + T]` of three prompts of different lengths, with random image tokens."""
    prompts = ["a sign", 'a red sign that says "TAXI"', "a photo of two blue circles and a very long afterthought"]
    ids, mask = policy.prompts.pad([policy.prompts.encode(prompt) for prompt in prompts])
    space = policy.image_tokens
    tokens = torch.randint(space.start, space.stop, (3, space.num_tokens), generator=torch.Generator().manual_seed(0))
    return torch.cat([ids, tokens], 1), torch.cat([mask, torch.ones_like(tokens)], 1)


@pytest.fixture(scope="session")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released model at a twentieth of its size: bfloat16 shards, the released file's own keys."""
    return make(tmp_path_factory.mktemp("scaled"), scale=0.05, seed=1, shard_gb=0.003)
