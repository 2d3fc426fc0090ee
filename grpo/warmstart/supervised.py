"""Supervised warm start: cross-entropy on image tokens plus flow matching of the diffusion head.

`joint` trains the AR part and the head together; `sequential` trains the AR part alone for `ar_steps`, then freezes it
and trains the head. Images become tokens (VQ-SigLIP2)
and latents (DC-AE) once, before training. Every batch follows from (seed, step), so a resumed run repeats what the
uninterrupted one would have done. Left out: multi-GPU; the released model needs no warm start, only new data does.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from blip3o_grpo.configs.schema import WarmstartConfig
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError, read_json
from blip3o_grpo.policies.blip3o_next.logprobs import position_ids
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext
from blip3o_grpo.warmstart.anchor import anchor_loss, make_probe
from blip3o_grpo.warmstart.data import WarmstartData


@dataclass(frozen=True)
class Batch:
    """One supervised batch."""

    ids: torch.Tensor  # [B, L + T] prompt (left-padded) and image tokens
    mask: torch.Tensor  # [B, L + T]
    latents: torch.Tensor  # [B, C, h, w], scaled
    honest: torch.Tensor  # [B] bool: the caption belongs to the image, so its tokens are labels
    conditioned: torch.Tensor  # [B] bool: False = the condition is zeroed
    noise: torch.Tensor  # [B, C, h, w]
    timesteps: torch.Tensor  # [B] indices into the scheduler's training timesteps
    condition_noise: torch.Tensor | float = 0.0  # [B, T + 1, D], in units of the hidden states' standard deviation


def draw_batch(policy: BLIP3oNext, data: WarmstartData, config: WarmstartConfig, step: int) -> Batch:
    """The batch of a step, all its randomness from (seed, step)."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    size = config.batch_size
    rows = torch.randint(len(data.captions), (size,), generator=generator)
    swapped = torch.rand(size, generator=generator) < config.caption_swap
    others = torch.randint(len(data.captions), (size,), generator=generator)
    prompts = [data.prompt_ids[i] for i in torch.where(swapped, others, rows).tolist()]
    prompt_ids, prompt_mask = policy.prompts.pad(prompts)
    tokens = data.tokens[rows].long() + policy.image_tokens.start
    latents = data.latents[rows].float()
    hidden_shape = (size, policy.image_tokens.num_tokens + 1, policy.config.hidden_size)
    return Batch(
        ids=torch.cat([prompt_ids, tokens], 1),
        mask=torch.cat([prompt_mask, torch.ones_like(tokens)], 1),
        latents=latents,
        honest=~swapped,
        conditioned=torch.rand(size, generator=generator) >= config.condition_dropout,
        noise=torch.randn(latents.shape, generator=generator),
        timesteps=torch.randint(len(policy.scheduler.timesteps), (size,), generator=generator),
        condition_noise=config.condition_noise * torch.randn(hidden_shape, generator=generator),
    )


def warmstart_loss(
    policy: BLIP3oNext,
    batch: Batch,
    *,
    train_ar: bool = True,
    train_head: bool = True,
    probe: nn.Linear | None = None,
    anchor_weight: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the image tokens (nats) plus mean squared error of the flow `noise - latent`.

    x_t = (1 - sigma) * latent + sigma * noise, sigma uniform over the training timesteps; the condition is the
    connector on the hidden states of `<S0>` and the image tokens, or on zeros where dropped.
    """
    space = policy.image_tokens
    with torch.set_grad_enabled(train_ar):
        hidden = policy.ar.model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=position_ids(batch.mask), use_cache=False
        ).last_hidden_state[:, -space.num_tokens - 1 :]  # [B, T + 1, D]
    metrics = {}
    loss = hidden.new_zeros(())
    if train_ar:
        rows = policy.ar.lm_head.weight[space.start : space.stop]
        logits = F.linear(hidden[batch.honest, :-1], rows).float()  # [B', T, K]
        targets = batch.ids[batch.honest, -space.num_tokens :] - space.start
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss = loss + cross_entropy
        metrics["cross_entropy"] = cross_entropy.item()
        if probe is not None:
            embeddings = policy.ar.model.embed_tokens(batch.ids[:, -space.num_tokens :])
            anchor, told = anchor_loss(probe, hidden[:, 1:], embeddings)
            loss = loss + anchor_weight * anchor
            metrics |= told
    if not train_head:
        return loss, metrics
    sigmas = policy.scheduler.sigmas[batch.timesteps].view(-1, 1, 1, 1)
    noisy = (1 - sigmas) * batch.latents + sigmas * batch.noise
    hidden = hidden + batch.condition_noise * hidden.detach().std()
    condition = policy.connector(hidden * batch.conditioned.view(-1, 1, 1))
    velocity = policy.sana(
        hidden_states=noisy,
        timestep=policy.scheduler.timesteps[batch.timesteps],
        encoder_hidden_states=condition,
    ).sample
    flow = F.mse_loss(velocity, batch.noise - batch.latents)
    metrics["flow_matching"] = flow.item()
    return loss + flow, metrics


def learns(config: WarmstartConfig, step: int) -> tuple[bool, bool]:
    """Whether the AR part and the head learn at a step."""
    if config.strategy == "joint":
        return True, True
    return step < config.ar_steps, step >= config.ar_steps


def learning_rate(config: WarmstartConfig, step: int) -> float:
    """Linear warm-up, then cosine to 2 % of the peak; in `sequential` once for the AR part and once for the head."""
    first, last = 0, config.max_steps
    if config.strategy == "sequential":
        first, last = (0, config.ar_steps) if step < config.ar_steps else (config.ar_steps, config.max_steps)
    warm = min(1.0, (step - first + 1) / max(1, config.warmup_steps))
    progress = max(0, step - first - config.warmup_steps) / max(1, last - first - config.warmup_steps)
    return config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))


class Warmstart:
    """A resumable warm-start run inside `config.run_dir`."""

    def __init__(self, config: WarmstartConfig):
        self.config = config
        self.folder = Path(config.run_dir)
        self.train_ar = config.strategy == "joint" or config.ar_steps > 0
        self.probe: nn.Linear | None = None

    def run(self, console: Console | None = None) -> Path:
        """Train, or go on where the newest checkpoint stopped; returns the finished policy's folder.

        Raises:
            CheckpointError: the policy cannot be loaded, or the run folder belongs to another configuration.
            WarmstartDataError: images or captions that cannot be used.
        """
        config, console = self.config, console or Console()
        captions = WarmstartData.read_captions(config)
        self._claim_folder()
        if (self.folder / "policy" / "config.json").is_file():
            console.print(f"already finished: {self.folder / 'policy'}")
            return self.folder / "policy"
        if config.threads:
            torch.set_num_threads(config.threads)
        checkpoint = self._newest_checkpoint()
        policy = BLIP3oNext.from_pretrained(checkpoint or config.policy.path, parts=("ar", "head", "vision"))
        data = WarmstartData.encode(policy, captions, self.folder / "encoded.safetensors", console)
        optimizer = self._optimizer(policy, draw_batch(policy, data, config, 0))
        start = 0
        if checkpoint:
            start = int(checkpoint.name.split("-")[1])
            state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            if self.probe:
                self.probe.load_state_dict(state["probe"])
            console.print(f"resuming from {checkpoint}")
        self._train(policy, data, optimizer, start, console)
        self._save(policy, self.folder / "policy", None)
        console.print(f"policy: {self.folder / 'policy'}")
        return self.folder / "policy"

    def _optimizer(self, policy: BLIP3oNext, batch: Batch) -> torch.optim.Optimizer:
        policy.requires_grad_(False)
        policy.sana.to(memory_format=torch.channels_last)  # its 3x3 convolutions are a quarter faster on CPU
        learning = [policy.connector, policy.sana, *([policy.ar] if self.train_ar else [])]
        for module in learning:
            module.requires_grad_(True).train()
        if self.train_ar and self.config.anchor_weight:
            self.probe = make_probe(policy, batch.ids, batch.mask)
            learning.append(self.probe)
        parameters = [parameter for module in learning for parameter in module.parameters()]
        return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=self.config.weight_decay)

    def _train(
        self, policy: BLIP3oNext, data: WarmstartData, optimizer: torch.optim.Optimizer, start: int, console: Console
    ) -> None:
        config, means = self.config, {}
        parameters = optimizer.param_groups[0]["params"]
        columns = (
            TextColumn("warm start"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with (
            Progress(*columns, console=console) as progress,
            (self.folder / "metrics.jsonl").open("a", buffering=1) as log,
        ):
            task = progress.add_task("", total=config.max_steps, completed=start, losses="")
            for step in range(start, config.max_steps):
                train_ar, train_head = learns(config, step)
                optimizer.param_groups[0]["lr"] = learning_rate(config, step)
                loss, metrics = warmstart_loss(
                    policy,
                    draw_batch(policy, data, config, step),
                    train_ar=train_ar,
                    train_head=train_head,
                    probe=self.probe,
                    anchor_weight=config.anchor_weight,
                )
                if not math.isfinite(loss.item()):
                    raise FloatingPointError(f"step {step}: the loss is {loss.item()}; lower learning_rate")
                optimizer.zero_grad()  # to None: a part that does not learn at this step is left alone
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()
                log.write(json.dumps({"step": step, **metrics}) + "\n")
                means = {name: 0.95 * means.get(name, value) + 0.05 * value for name, value in metrics.items()}
                losses = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
                progress.update(task, advance=1, losses=losses)
                if (step + 1) % 100 == 0:
                    progress.console.print(f"step {step + 1}: {losses}")
                if (step + 1) % config.checkpoint_every_steps == 0 and step + 1 < config.max_steps:
                    self._save(policy, self.folder / f"checkpoint-{step + 1}", optimizer)

    def _save(self, policy: BLIP3oNext, target: Path, optimizer: torch.optim.Optimizer | None) -> None:
        """Write to a temporary folder, rename, then drop older checkpoints."""
        temporary = self.folder / f".{target.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        policy.save_pretrained(temporary)
        if optimizer:
            probe = self.probe.state_dict() if self.probe else None
            torch.save({"optimizer": optimizer.state_dict(), "probe": probe}, temporary / "optimizer.pt")
        os.replace(temporary, target)
        for other in self.folder.glob("checkpoint-*"):
            if other != target:
                shutil.rmtree(other)

    def _newest_checkpoint(self) -> Path | None:
        found = [path for path in self.folder.glob("checkpoint-*") if (path / "optimizer.pt").is_file()]
        return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)

    def _claim_folder(self) -> None:
        """Refuse to mix two configurations in one run folder, or to take one with something else in it."""
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(f"run_dir: {self.folder} is a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "warmstart.json"
        in_the_way = [*self.folder.glob("checkpoint-*"), *self.folder.glob("policy")]
        if in_the_way and not file.is_file():
            raise CheckpointError(f"run_dir: {in_the_way[0]} is there, but no {file.name}; give another run_dir")
        values = self.config.model_dump(mode="json", exclude={"threads", "checkpoint_every_steps"})
        if file.is_file():
            known = read_json(file)
            changed = sorted(key for key in values if known.get(key) != values[key])
            if changed:
                raise CheckpointError(f"{file}: run_dir holds another run; these keys differ: {', '.join(changed)}")
        file.write_text(json.dumps(values, indent=2) + "\n")


def run(config: WarmstartConfig, console: Console | None = None) -> Path:
    """Run a warm start and return the finished policy's folder (see `Warmstart.run`)."""
    return Warmstart(config).run(console)
