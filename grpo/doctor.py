"""`blip3o-grpo doctor`: is everything here, do sampler and trainer agree, and can the reward be learnt at all?"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

from blip3o_grpo.cluster import ray_cluster
from blip3o_grpo.configs import DEFAULT_RECIPE, load_run_config
from blip3o_grpo.driver import versions
from blip3o_grpo.evaluation.variance import SpreadShares, spread_shares
from blip3o_grpo.policies import BLIP3oNext, image_logprobs
from blip3o_grpo.policies.blip3o_next.decoding import decode_completions
from blip3o_grpo.rewards import RewardBatch, build_reward, score
from blip3o_grpo.rollout import RolloutGroup, RolloutPipeline, noise_seed
from blip3o_grpo.run.folder import policy_folder
from blip3o_grpo.validate import check_run

AGREEMENT = 1e-4  # nats per token in float32
NUM_TOKEN_SEQUENCES = 4
NUM_NOISES = 4


def examine(console: Console, policy: str, *, quick: bool = False, num_prompts: int = 4) -> bool:
    """Print what is here and, unless `quick`, run the self-tests; True if nothing is wrong.

    Raises:
        ConfigError, CheckpointError: there is no such policy, or its files are not complete.
    """
    folder = policy_folder(policy)
    BLIP3oNext.check(folder)
    console.print(_environment_table(folder))
    if quick:
        return True
    overrides = [
        f"policy.path={folder}",
        "run_dir=runs/doctor",
        f"rollout.group_size={NUM_TOKEN_SEQUENCES}",
        "rollout.record_every_steps=0",
    ]
    run = check_run(load_run_config(DEFAULT_RECIPE, overrides))
    model = BLIP3oNext.from_pretrained(folder)
    with ray_cluster(run.config), closing(RolloutPipeline.launch(run.config, folder)) as pipeline:
        pipeline.sync_weights(model.ar.state_dict(), version=0)
        groups = pipeline.collect(run.heldout_prompts[:num_prompts], step="doctor").groups
    difference = logprob_difference(model, groups, run.config.rollout.temperature)
    agrees = difference < AGREEMENT
    console.print(
        f"sampler and trainer log-probabilities differ by {difference:.1e} nats per token on average: "
        + ("[green]they agree[/green]" if agrees else f"[red]more than {AGREEMENT}[/red]")
    )
    rollout = run.config.rollout
    spread = reward_spread(model, groups, rollout.num_diffusion_steps, rollout.guidance_scale)
    if any(spread.shares().values()):
        console.print(_spread_table(spread))
    else:
        console.print("[yellow]the OCR reward never varied on these prompts: GRPO has nothing to learn from[/yellow]")
    return agrees


def logprob_difference(model: BLIP3oNext, groups: tuple[RolloutGroup, ...], temperature: float) -> float:
    """Mean |sampling log-prob - training log-prob| (nats per token) over all completions of the groups."""
    differences = []
    for group in groups:
        tokens = torch.from_numpy(np.stack([r.completion.token_ids for r in group.rollouts]).astype(np.int64))
        ids, mask = model.prompts.pad([group.prompt_ids] * len(tokens))
        ids, mask = torch.cat([ids, tokens], dim=1), torch.cat([mask, torch.ones_like(tokens)], dim=1)
        with torch.no_grad():
            logprobs, _ = image_logprobs(model.ar, ids, mask, model.image_tokens, temperature)
        sampled = np.stack([rollout.completion.logprobs for rollout in group.rollouts])
        differences.append(np.abs(logprobs.cpu().numpy() - sampled))
    return float(np.mean(differences))


def reward_spread(
    model: BLIP3oNext, groups: tuple[RolloutGroup, ...], num_diffusion_steps: int, guidance_scale: float
) -> SpreadShares:
    """Decode every token sequence of each group from the same few noise draws and decompose the OCR reward's spread."""
    reward = build_reward("ocr")
    tables = []
    for group in groups:
        seeds = [noise_seed(0, "doctor", group.prompt.id, n, "independent") for n in range(NUM_NOISES)]
        rows = []
        for rollout in group.rollouts:
            tokens = torch.from_numpy(rollout.completion.token_ids.astype(np.int64)).expand(NUM_NOISES, -1)
            prompts = [group.prompt_ids] * NUM_NOISES
            decoded = decode_completions(
                model, prompts, tokens, seeds, num_steps=num_diffusion_steps, guidance_scale=guidance_scale
            )
            images = list(decoded.numpy())
            batch = RewardBatch(images, [group.prompt.text] * NUM_NOISES, [group.prompt.metadata] * NUM_NOISES)
            rows.append(score(reward, batch, "ocr"))
        tables.append(np.array(rows, dtype=np.float64))
    return spread_shares(tables)


def _environment_table(policy: Path) -> Table:
    table = Table("what", "found", title="environment")
    for name, version in versions().items():
        table.add_row(name, version)
    table.add_row("CPU cores", str(len(os.sched_getaffinity(0))))
    table.add_row("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(devices) or "none")
    weights = sorted(policy.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights) / 2**20
    table.add_row("policy", f"{policy} ({len(weights)} files, {size:.0f} MiB)" if weights else f"{policy}: no weights")
    return table


def _spread_table(spread: SpreadShares) -> Table:
    table = Table("where the OCR reward's spread within a prompt comes from", "share", "can GRPO learn it?")
    answers = {
        "tokens": "yes",
        "noise": "no; shared noise removes it from the groups",
        "interaction": "partly: tokens that work with one noise and not with another",
    }
    for name, share in spread.shares().items():
        table.add_row(name, f"{share:.0%}", answers[name])
    return table
