"""The loop of a warm start: load, encode, step, checkpoint, stop where nothing is lost, and write the policy."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from blip3o_grpo.configs import WarmstartConfig
from blip3o_grpo.configs.atomic import require_room, staged_folder, storage_errors
from blip3o_grpo.configs.inert import inert_warmstart_options
from blip3o_grpo.policies import BLIP3oNext, PromptEncoder, resolve_policy_path
from blip3o_grpo.policies.blip3o_next.checkpoint import released_tensors
from blip3o_grpo.progress import Bar, activity, print_notice
from blip3o_grpo.run.environment import record_start
from blip3o_grpo.run.folder import RunFolder, finish_checkpoint
from blip3o_grpo.run.metrics import append_metrics, forget_later
from blip3o_grpo.run.stopping import RunStopped, StopSignals
from blip3o_grpo.terminal import show
from blip3o_grpo.warmstart.anchor import make_probe
from blip3o_grpo.warmstart.encoded import EncodedPictures, encode_captions, load_or_encode
from blip3o_grpo.warmstart.loss import Batch, draw_batch, learning_rate, learns, warmstart_loss
from blip3o_grpo.warmstart.types import CheckedWarmstart, WarmstartError

PARTS = ("ar", "head", "vision")
ADAM_BYTES = 8
"""Two moments for a value that learns."""
STATE = "optimizer.pt"
ENCODED = "encoded.safetensors"
LINES = 100
"""Progress lines of a run without a terminal."""


def train(run: CheckedWarmstart, console: Console, signals: StopSignals) -> None:
    """Train from the newest complete checkpoint (or the starting policy) to the last step, and write the policy.

    Raises:
        CheckpointError, WarmstartDataError, ImageFileError, StorageError, CheckpointRefusedError, WarmstartError.
        RunStopped: a signal stopped the training; a checkpoint holds all finished steps.
    """
    config, folder = run.config, run.folder
    if config.threads:
        torch.set_num_threads(config.threads)

    def warn(text: str) -> None:
        print_notice(console, text)

    for sentence in inert_warmstart_options(config):
        warn(sentence)
    checkpoint = folder.verified_checkpoint(warn)
    record_start(folder.environment, folder.newest_step())
    start = checkpoint or resolve_policy_path(config.policy.path)
    prompt_ids = encode_captions(PromptEncoder.from_pretrained(start), run.pictures)  # before any weight is read
    with activity(console, f"loading the policy {start}"):
        policy = BLIP3oNext.from_pretrained(start, parts=PARTS)
    learner = Learner(policy, config)
    check_room(folder, learner, len(run.pictures))
    pictures = load_or_encode(
        policy,
        run.pictures,
        content=run.content,
        preprocessing=config.preprocessing,
        file=folder.path / ENCODED,
        console=console,
        warn=warn,
    )
    learner.make_optimizer(draw_batch(policy, prompt_ids, pictures, config, 0))
    done = 0
    if checkpoint:
        done = folder.newest_step()
        learner.load_state(checkpoint / STATE)
        show(console, f"resuming from {checkpoint}")
    forget_later(folder.metrics, done)
    with signals.graceful(folder.stop):
        finished = take_steps(learner, prompt_ids, pictures, folder, done, console)
        if finished:
            with activity(console, f"saving the policy to {folder.policy}"), staged_folder(folder.policy) as staged:
                policy.save_pretrained(staged)
            with storage_errors(folder.checkpoints):
                shutil.rmtree(folder.checkpoints)
    if not finished:
        raise RunStopped  # by the file alone: after a signal, `graceful` has raised


class Learner:
    """What learns, its optimiser and the anchor loss's probe."""

    def __init__(self, policy: BLIP3oNext, config: WarmstartConfig):
        self.policy, self.config = policy, config
        self.trains_ar, _ = learns(config, 0)
        self.probe: nn.Linear | None = None
        policy.requires_grad_(False)
        policy.sana.to(memory_format=torch.channels_last)  # its 3x3 convolutions are a quarter faster on CPU
        for module in self._modules():
            module.requires_grad_(True).train()

    def num_values(self) -> int:
        """Values that learn at some step, those of the probe left out."""
        return sum(parameter.numel() for module in self._modules() for parameter in module.parameters())

    def make_optimizer(self, batch: Batch) -> None:
        """Optimiser of the parts, and of the probe, which `batch` fits first."""
        if self.trains_ar and self.config.anchor_weight:
            self.probe = make_probe(self.policy, batch.ids, batch.mask)
        modules = [*self._modules(), *([self.probe] if self.probe else [])]
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        betas = (0.9, self.config.adam_beta2)
        self.optimizer = torch.optim.AdamW(self.parameters, betas=betas, weight_decay=self.config.weight_decay)

    def step(self, batch: Batch, done: int) -> dict[str, float]:
        """One optimiser step; returns its losses.

        Args:
            done: steps before it.

        Raises:
            WarmstartError: loss or gradient are not finite; the weights are as they were.
        """
        train_ar, train_head = learns(self.config, done)
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.config, done)
        loss, losses = warmstart_loss(
            self.policy,
            batch,
            train_ar=train_ar,
            train_head=train_head,
            labels=self.config.labels,
            probe=self.probe,
            anchor_weight=self.config.anchor_weight,
        )
        self.optimizer.zero_grad()  # to None: a part that does not learn at this step is left alone
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for name, value in (("loss", loss.item()), ("gradient", norm.item())):
            if not math.isfinite(value):
                raise WarmstartError(
                    f"step {done + 1}: the {name} is {value}; give a lower learning_rate and another run_dir, or "
                    "another policy if it is the first step"
                )
        self.optimizer.step()
        return losses

    def save_state(self, file: Path) -> None:
        """Optimiser and probe, to go on from."""
        probe = self.probe.state_dict() if self.probe else None
        torch.save({"optimizer": self.optimizer.state_dict(), "probe": probe}, file)

    def load_state(self, file: Path) -> None:
        """What `save_state` wrote."""
        state = torch.load(file, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.probe:
            self.probe.load_state_dict(state["probe"])

    def _modules(self) -> list[nn.Module]:
        sana = [module for name, module in self.policy.sana.named_children() if name.startswith("caption")]
        parts = {
            "connector": [self.policy.connector],
            "sana": [self.policy.sana],
            "sana_caption": sana,
            "ar": [self.policy.ar] if self.trains_ar else [],
        }
        return [module for part, modules in parts.items() if part in self.config.trains for module in modules]


def take_steps(
    learner: Learner,
    prompt_ids: list[list[int]],
    pictures: EncodedPictures,
    folder: RunFolder,
    done: int,
    console: Console,
) -> bool:
    """The steps that are left, with a checkpoint every so many; whether all were taken.

    If a stop is asked for, it ends after the step it is in, with a checkpoint.
    """
    config, means = learner.config, {}
    with Bar(console, "warm start", config.max_steps, done, lines=LINES) as bar:
        for step in range(done + 1, config.max_steps + 1):
            losses = learner.step(draw_batch(learner.policy, prompt_ids, pictures, config, step - 1), step - 1)
            append_metrics(folder.metrics, step, losses)
            means = {name: 0.95 * means.get(name, value) + 0.05 * value for name, value in losses.items()}
            line = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            stop = folder.stop.exists() and step < config.max_steps
            if stop or (step % config.checkpoint_every_steps == 0 and step < config.max_steps):
                save_checkpoint(learner, folder, step)
            if stop:
                return False
            bar.see(step, line)
    return True


def save_checkpoint(learner: Learner, folder: RunFolder, step: int) -> None:
    """Write into the staging folder, complete, move into place, and drop the one before.

    Raises:
        StorageError: the disk is full, for example; what was staged is removed, the older checkpoint is untouched.
    """
    staged = folder.staging / f"checkpoint-{step}"
    try:
        with storage_errors(folder.checkpoints / staged.name):
            learner.policy.save_pretrained(staged)
            learner.save_state(staged / STATE)
            finish_checkpoint(folder.staging, step, keep=1)
    except Exception:
        shutil.rmtree(folder.staging, ignore_errors=True)
        raise


def check_room(folder: RunFolder, learner: Learner, num_pictures: int) -> None:
    """Refuse a run whose encoded pictures, checkpoints and policy the disk cannot hold.

    Raises:
        StorageError: naming what is needed and what is free.
    """
    policy, config = learner.policy, learner.config
    finished = sum(tensor.nbytes for tensor in released_tensors(policy.parts()).values())
    checkpoint = finished + ADAM_BYTES * learner.num_values()
    several = config.max_steps > 2 * config.checkpoint_every_steps  # the older one goes when the newer one is there
    peak = checkpoint + (checkpoint if several else finished)
    saved = checkpoint if folder.newest_step() else 0
    latents = policy.sana.config.in_channels * policy.sana.config.sample_size**2
    encoded = num_pictures * (policy.image_tokens.num_tokens + latents) * 4  # int32 and float32
    if (folder.path / ENCODED).is_file():
        encoded = 0
    what = (
        f"checkpoints of {checkpoint / 1e9:.2f} GB, the policy of {finished / 1e9:.2f} GB, encoded pictures of "
        f"{encoded / 1e9:.2f} GB"
    )
    require_room(folder.path, peak - saved + encoded, what)
