"""`blip3o-grpo doctor`: is all that a recipe needs here, do sampler and trainer agree, can its rewards be learnt?"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from blip3o_grpo.configs import RewardSection, RunConfig
from blip3o_grpo.configs.inert import inert_options
from blip3o_grpo.configs.needs_tokens import require_tokens
from blip3o_grpo.evaluation.statistics import Estimate, estimate
from blip3o_grpo.evaluation.variance import SpreadShares, spread_shares
from blip3o_grpo.progress import Bar, activity, print_notice
from blip3o_grpo.rewards import LoadedReward, RewardBatch, load_reward
from blip3o_grpo.rollout import RolloutGroup, noise_seed
from blip3o_grpo.run.folder import policy_folder
from blip3o_grpo.terminal import plain, show
from blip3o_grpo.validate import CheckedRun, check_models

if TYPE_CHECKING:
    from blip3o_grpo.policies import BLIP3oNext

AGREEMENT = 1e-4  # nats per token in float32
NUM_TOKEN_SEQUENCES = 4
NUM_NOISES = 4


def doctor_config(config: RunConfig, policy: str | None) -> RunConfig:
    """The recipe as the self-tests run it: another policy if one is named, small groups, nothing recorded.

    Raises:
        ConfigError, CheckpointError: there is no such policy, or it is of a kind that `doctor` does not know.
    """
    require_tokens(config, "doctor")
    path = config.policy.path if policy is None else str(policy_folder(policy))
    rollout = {"group_size": NUM_TOKEN_SEQUENCES, "prompts_per_step": 1, "record_every_steps": 0}
    return config.model_copy(
        update={
            "run_dir": str(Path("runs/doctor").resolve()),  # of failures
            "policy": config.policy.model_copy(update={"path": path}),
            "rollout": config.rollout.model_copy(update=rollout),
            "cluster": config.cluster.model_copy(update={"trainers": 1}),
        }
    )


def examine(run: CheckedRun, console: Console, *, quick: bool = False, num_prompts: int = 4) -> bool:
    """Print what is here and, unless `quick`, run the self-tests; True if nothing is wrong.

    Args:
        run: `doctor_config` of a recipe, its inputs checked.

    Raises:
        ConfigError, CheckpointError: the policy's files are not complete, or the recipe does not fit the machine.
    """
    from blip3o_grpo.run.environment import versions

    check_models(run)
    console.print(_environment_table(run.policy_path, versions()))
    for sentence in inert_options(run.config):
        print_notice(console, sentence)
    return quick or self_test(run, console, num_prompts)


def self_test(run: CheckedRun, console: Console, num_prompts: int) -> bool:
    """Draw a few groups and measure on them; True if sampler and trainer agree."""
    import torch

    from blip3o_grpo.cluster import ray_cluster
    from blip3o_grpo.policies import BLIP3oNext
    from blip3o_grpo.rollout import RolloutPipeline

    config, prompts = run.config, run.heldout_prompts[:num_prompts]
    with activity(console, f"loading the policy {run.policy_path}"):
        model = BLIP3oNext.from_pretrained(run.policy_path, dtype=getattr(torch, config.policy.dtype))
    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(config))
        with activity(console, f"loading the policy and {len(config.rewards)} rewards into workers"):
            pipeline = stack.enter_context(closing(RolloutPipeline.launch(config, run.policy_path)))
        pipeline.sync_weights(model.ar.state_dict(), version=0)
        with Bar(console, "drawing", len(prompts), unit="prompt") as bar:
            groups = pipeline.collect(prompts, step="doctor", progress=bar.see).groups
    difference, bound = logprob_difference(model, groups, config.rollout.temperature), agreement_bound(config)
    agrees = difference.mean < bound
    verdict = ("they agree", "green") if agrees else (f"more than {bound:g}, the bound of {config.policy.dtype}", "red")
    found = (
        f"sampler and trainer log-probabilities differ by {difference.mean:.1e} nats per token on average "
        f"({difference.interval_and_n('.1e')}): "
    )
    show(console, found, verdict)
    with activity(console, f"decoding every drawing from {NUM_NOISES} noises"):
        images = decode_again(model, groups, config)
    for section in config.rewards:
        show_reward(section, groups, images, console)
    return agrees


def agreement_bound(config: RunConfig) -> float:
    """Nats per token by which sampler and trainer may differ: rounding in float32, else the recipe's own bound."""
    return AGREEMENT if config.policy.dtype == "float32" else config.trainer.mismatch_bound


def show_reward(
    section: RewardSection, groups: tuple[RolloutGroup, ...], images: list[np.ndarray], console: Console
) -> None:
    if section.runtime_env:
        show(console, f"reward {section.name}: has an environment of its own, so its spread is not measured here")
        return
    reward = load_reward(section.target, section.options, section.folder)
    spread = reward_spread(reward, groups, images)
    if spread is None:
        show(console, f"reward {section.name}: ", ("applies to none of these prompts", "yellow"))
    elif not any(spread.shares().values()) and not reward.spec.expects_spread:
        show(console, f"reward {section.name}: did not vary on these prompts, as it should")
    elif not any(spread.shares().values()):
        never = "never varied on these prompts: GRPO has nothing to learn from it"
        show(console, f"reward {section.name}: ", (never, "yellow"))
    else:
        console.print(_spread_table(section.name, spread))


def logprob_difference(model: BLIP3oNext, groups: tuple[RolloutGroup, ...], temperature: float) -> Estimate:
    """Mean |sampling log-prob - training log-prob| (nats per token) over the groups' prompts."""
    import torch

    from blip3o_grpo.policies import image_logprobs

    differences = []
    for group in groups:
        tokens = torch.from_numpy(np.stack([r.completion.token_ids for r in group.rollouts]).astype(np.int64))
        ids, mask = model.prompts.pad([group.prompt_ids] * len(tokens))
        ids, mask = torch.cat([ids, tokens], dim=1), torch.cat([mask, torch.ones_like(tokens)], dim=1)
        with torch.no_grad():
            logprobs, _ = image_logprobs(model.ar, ids, mask, model.image_tokens, temperature)
        sampled = np.stack([rollout.completion.logprobs for rollout in group.rollouts])
        differences.append(float(np.abs(logprobs.float().cpu().numpy() - sampled).mean()))
    return estimate(differences)


def decode_again(model: BLIP3oNext, groups: tuple[RolloutGroup, ...], config: RunConfig) -> list[np.ndarray]:
    """Every token sequence of each group decoded from the same few noise draws: per group `[T, N, H, W, 3]` uint8."""
    import torch

    from blip3o_grpo.policies.blip3o_next.decoding import decode_completions

    found = []
    for group in groups:
        seeds = [noise_seed(0, "doctor", group.prompt.id, n, "independent") for n in range(NUM_NOISES)]
        rows = []
        for rollout in group.rollouts:
            tokens = torch.from_numpy(rollout.completion.token_ids.astype(np.int64)).expand(NUM_NOISES, -1)
            decoded = decode_completions(
                model,
                [group.prompt_ids] * NUM_NOISES,
                tokens,
                seeds,
                num_steps=config.rollout.num_diffusion_steps,
                guidance_scale=config.rollout.guidance_scale,
                guidance_interval=config.rollout.guidance_interval,
            )
            rows.append(decoded.numpy())
        found.append(np.stack(rows))
    return found


def reward_spread(
    reward: LoadedReward, groups: tuple[RolloutGroup, ...], images: list[np.ndarray]
) -> SpreadShares | None:
    """Where a reward's spread within a prompt comes from; None if it scores no prompt.

    The siblings of one noise draw are scored in one call, as a reward of groups needs them. A reward that compares
    with the starting policy's images compares with the rollouts' own.

    Args:
        images: of `decode_again`.
    """
    if reward.fits_reference:
        pairs = [(group.prompt, rollout.image) for group in groups for rollout in group.rollouts]
        reward.instance.fit_reference(
            RewardBatch([i for _, i in pairs], [p.text for p, _ in pairs], [p.metadata for p, _ in pairs])
        )
    tables = []
    for group, drawn in zip(groups, images, strict=True):
        prompts, metadata = [group.prompt.text] * len(drawn), [group.prompt.metadata] * len(drawn)
        columns = [
            reward.score(RewardBatch(list(drawn[:, noise]), prompts, metadata)) for noise in range(drawn.shape[1])
        ]
        table = np.array(columns, dtype=np.float64).T  # None becomes NaN
        if not np.isnan(table).any():
            tables.append(table)
    return spread_shares(tables) if tables else None


def _environment_table(policy: Path, versions: dict[str, str]) -> Table:
    import torch

    table = Table("what", "found", title="environment")
    for name, version in versions.items():
        table.add_row(name, version)
    table.add_row("CPU cores", str(len(os.sched_getaffinity(0))))
    table.add_row("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(devices) or "none")
    weights = sorted(policy.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights) / 2**20
    table.add_row("policy", plain(f"{policy} ({len(weights)} files, {size:.0f} MiB)"))
    return table


def _spread_table(name: str, spread: SpreadShares) -> Table:
    table = Table(
        f"where the spread of {name} within a prompt comes from", "share", "95 % interval", "which half can learn it?"
    )
    answers = {
        "tokens": "the tokens",
        "noise": "the head (learn: [head]); for tokens, shared noise removes it from the groups",
        "interaction": "both, partly: tokens that work with one noise and not with another",
    }
    for name, share in spread.estimates().items():
        table.add_row(name, f"{share.mean:.0%}", share.interval_and_n(".0%"), answers[name])
    return table
