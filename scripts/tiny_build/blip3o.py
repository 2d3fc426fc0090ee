"""Parts of the tiny BLIP3-o, trained on drawn shapes: the AR part on text, then queries and transformer on features."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.blip3o_next.positions import position_ids
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.warmstart.features import Loss, draw_feature_batch, feature_loss
from scripts.tiny_build.patches import pixels
from scripts.tiny_build.rough import PEAK_RATE, out_of_focus
from scripts.tiny_build.training import fit

CONDITION_DROPOUT = 0.1
ROUGH = "rough"
"""Stage of the policy that is kept: the first arm, trained on with pictures out of focus."""
BLUR = (0.5, 6.0)
"""Radii of their blur (px of 56): shapes bear more of it than letters do."""
IGNORED = -100
ENCODE_BATCH = 250


@dataclass(frozen=True)
class Arm:
    """A way to train: by which loss, and whether the AR part learns too (`joint`) or is frozen (`sequential`)."""

    loss: Loss
    joint: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.loss}_{'joint' if self.joint else 'sequential'}"


ARMS = (Arm("flow", False), Arm("flow", True), Arm("mse", False))
"""The first is what the policy that is kept goes on from; the others differ from it in one thing each."""


def draw_shapes(num: int, seed: int, *, heldout: bool = False) -> list[world.Scene]:
    """Scenes of shapes, GenEval's six tags in equal parts on average, reproducible.

    No signs: to spell takes an AR part more steps than a build of ten minutes has.
    """
    rng = random.Random(seed)
    return [world.sample(rng, heldout=heldout, signs=0.0) for _ in range(num)]


def encode(policy: BLIP3o, images: torch.Tensor) -> torch.Tensor:
    """Features `[N, C, h, w]` of pictures `[N, 3, H, W]` in 0..255, half precision."""
    return torch.cat([policy.decoder.features_of(batch.float() / 255).half() for batch in images.split(ENCODE_BATCH)])


def blurred(scenes: list[world.Scene]) -> torch.Tensor:
    """Drawn scenes `[N, 3, H, W]` in 0..255, out of focus."""
    drawn = pixels(scenes).permute(0, 2, 3, 1).to(torch.uint8).numpy()
    images = np.stack([np.asarray(image) for image in out_of_focus(list(drawn), BLUR)])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def text_rows(policy: BLIP3o, scenes: list[world.Scene]) -> tuple[list[list[int]], list[int]]:
    """For every scene the chat in which the assistant repeats the caption, and how many of its ids are the answer."""
    tokenizer = policy.prompts.tokenizer
    rows, answers = [], []
    for scene in scenes:
        asked = policy.prompts.encode(scene.prompt)[:-1]  # without the image's opening
        answer = tokenizer(f"{scene.prompt}<|im_end|>", add_special_tokens=False)["input_ids"]
        rows.append(asked + answer)
        answers.append(len(answer))
    return rows, answers


def text_losses(policy: BLIP3o, rows: list[list[int]], answers: list[int]) -> torch.Tensor:
    """Mean cross-entropy `[B]` (nats) of each answer's tokens; the head is the embedding, as in Qwen2.5-VL-3B."""
    ids, mask = policy.prompts.pad(rows)
    labels = ids.clone()
    for row, length in enumerate(answers):
        labels[row, :-length] = IGNORED
    hidden = policy.ar(
        input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
    ).last_hidden_state
    logits = hidden[:, :-1] @ policy.ar.embed_tokens.weight.T  # [B, L - 1, V]
    losses = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=IGNORED)
    return losses.sum(1) / torch.tensor(answers)


def train_text(policy: BLIP3o, scenes: list[world.Scene], steps: int, batch_size: int, console: Console) -> None:
    """Teach the AR part to read captions: it learns to repeat them, as a language model does."""
    rows, answers = text_rows(policy, scenes)

    def losses(picked: torch.Tensor) -> dict[str, torch.Tensor]:
        chosen = picked.tolist()
        return {"loss": text_losses(policy, [rows[i] for i in chosen], [answers[i] for i in chosen]).mean()}

    parameters = list(policy.ar.train().parameters())
    generator = torch.Generator().manual_seed(5)
    fit("text", parameters, losses, len(rows), steps, batch_size, generator, console)
    policy.eval()


def train_arm(
    policy: BLIP3o,
    arm: Arm,
    scenes: list[world.Scene],
    features: torch.Tensor,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    checkpoint: Path,
    console: Console,
) -> None:
    """Train queries, connector and transformer, and in a joint arm the AR part; all arms see the same pictures.

    Args:
        features: `[N, C, h, w]` of the scenes.
        checkpoint: file to go on from.
    """
    learning = [policy.latent_queries, *policy.connector.parameters(), *policy.dit.parameters()]
    if arm.joint:
        learning += policy.ar.parameters()
    _fit_features(policy, arm.name, arm.loss, learning, scenes, features, steps, batch_size, rate, checkpoint, console)


def train_rough(
    policy: BLIP3o, scenes: list[world.Scene], features: torch.Tensor, steps: int, batch_size: int, console: Console
) -> None:
    """Train connector and transformer on with the features of blurred pictures."""
    learning = [*policy.connector.parameters(), *policy.dit.parameters()]
    _fit_features(policy, ROUGH, "flow", learning, scenes, features, steps, batch_size, PEAK_RATE, None, console)


def _fit_features(
    policy: BLIP3o,
    name: str,
    loss: Loss,
    learning: list[torch.nn.Parameter],
    scenes: list[world.Scene],
    features: torch.Tensor,
    steps: int,
    batch_size: int,
    rate: float,
    checkpoint: Path | None,
    console: Console,
) -> None:
    prompt_ids = [policy.prompts.encode(scene.prompt) for scene in scenes]
    policy.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(6)

    def losses(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = draw_feature_batch(policy, prompt_ids, features, rows, dropout=CONDITION_DROPOUT, generator=generator)
        return {"loss": feature_loss(policy, batch, loss)}

    fit(name, learning, losses, len(scenes), steps, batch_size, generator, console, rate, checkpoint)
    policy.requires_grad_(True)
