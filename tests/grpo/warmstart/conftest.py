"""A few drawn signs with captions, and the configuration of a short warm start on them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.warmstart import digest_pictures, read_captions, train_supervised
from blip3o_grpo.warmstart.encoded import encode_captions, load_or_encode


def write_captions(file: Path, records: list[dict]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 drawn signs with captions."""
    target = tmp_path / "pictures"
    target.mkdir()
    rng, records = random.Random(0), []
    for number in range(24):
        scene = world.sample(rng, heldout=False, tag="sign")
        Image.fromarray(world.render(scene)).save(target / f"{number}.png")
        records.append({"file_name": f"{number}.png", "text": scene.prompt})
    write_captions(target / "captions.jsonl", records)
    return target


@pytest.fixture
def config(policy_path: Path, pictures: Path, tmp_path: Path) -> WarmstartConfig:
    return WarmstartConfig(
        run_dir=str(tmp_path / "run"),
        policy=PolicySection(path=str(policy_path)),
        images=str(pictures),
        captions=str(pictures / "captions.jsonl"),
        max_steps=6,
        batch_size=8,
        learning_rate=1e-3,
        warmup_steps=2,
        caption_swap=0.2,
        checkpoint_every_steps=3,
        threads=1,
    )


@pytest.fixture
def say() -> Console:
    """A console that keeps what is printed."""
    return Console(record=True, width=500, force_terminal=False, quiet=False)


@pytest.fixture
def start(policy_path: Path) -> BLIP3oNext:
    """The starting policy with all its parts."""
    return BLIP3oNext.from_pretrained(policy_path, parts=("ar", "head", "vision"))


@pytest.fixture
def run(say):
    """Runs a configuration with changes; returns the result and the lines of `metrics.jsonl`."""

    def start(config: WarmstartConfig, **changes):
        result = train_supervised(config.model_copy(update=changes), say)
        return result, read_lines(result.run_dir / "metrics.jsonl")

    return start


@pytest.fixture
def load(tmp_path, say):
    """Prompt ids and encoded pictures of a configuration, with the warnings it gave; keeps one file for all calls."""

    def load(policy: BLIP3oNext, config: WarmstartConfig):
        pictures, warnings = read_captions(config), []
        encoded = load_or_encode(
            policy,
            pictures,
            content=digest_pictures(pictures),
            preprocessing=config.preprocessing,
            file=tmp_path / "encoded.safetensors",
            console=say,
            warn=warnings.append,
        )
        return encode_captions(policy.prompts, pictures), encoded, warnings

    return load
