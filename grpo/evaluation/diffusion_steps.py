"""`blip3o-grpo steps`: do rewards judge images of few diffusion steps as they judge those of many?

The same completions are decoded from the same noise in each number of steps and scored. GRPO sees a reward only through
the order of images inside a group, so what counts is the rank correlation within groups; over all images it is usually
higher, because prompts differ in difficulty whatever the number of steps. The largest number is what others are
compared with: one that agrees with it can train at a fraction of the decoding time, and evaluations keep the large
one. An interval of guidance, which makes steps outside it cheaper, is judged likewise: every number of steps with it,
against the largest without.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RunConfig
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.evaluation.agreement import SAME, group_agreements, over_prompts, rank_correlation
from blip3o_grpo.evaluation.heldout import HELDOUT_STEP, collect_heldout
from blip3o_grpo.evaluation.statistics import Estimate, resampled_estimate
from blip3o_grpo.evaluation.suites import check_model, check_policy, measuring_config
from blip3o_grpo.planning.guidance import check_guidance
from blip3o_grpo.progress import Bar, activity
from blip3o_grpo.rollout import Prompt, RolloutBatch, load_prompts
from blip3o_grpo.rollout.messages import Denoising
from blip3o_grpo.run.files import read_reward_state
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.validate import check_rewards

if TYPE_CHECKING:
    from blip3o_grpo.rollout import RolloutPipeline


@dataclass(frozen=True)
class Agreement:
    """One reward on images of fewer steps against its scores on images of the most steps."""

    within: Estimate | None
    """Spearman's correlation inside a group, mean over groups, and its 95 % interval (prompts resampled); None: no
    group has at least three images and spread in both."""
    num_groups: int
    """Groups that this is the mean of."""
    spread_lost: Estimate | None
    """Of the groups with spread at the most steps, the share without any at fewer: they would teach nothing."""
    same_order: Estimate | None
    """Share of image pairs of a group that both tell apart and put in the same order; by chance one half."""
    overall: Estimate | None
    """Spearman's correlation over all images, and its 95 % interval (prompts resampled)."""


@dataclass(frozen=True)
class StepsRow:
    """One reward at one number of diffusion steps."""

    reward: str
    num_steps: int
    guidance_interval: tuple[float, float]
    mean: Estimate
    """Over prompts."""
    decode_seconds: float
    """Busy seconds of decoders per image."""
    agreement: Agreement | None
    """With the most steps; None: these are the most."""


@dataclass(frozen=True)
class StepsResult:
    """What was measured."""

    num_prompts: int
    images_per_prompt: int
    rows: tuple[StepsRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def compare_steps(
    policy: str,
    steps: Sequence[int] | None = None,
    *,
    guidance_interval: tuple[float, float] | None = None,
    recipe: Path | None = None,
    prompts: Path | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> StepsResult:
    """Decode and score held-out prompts in each number of steps.

    Args:
        policy: `tiny`, a folder in the released layout, or a run folder.
        steps: at least two numbers, or one with a guidance interval; default: those of rollouts and of evaluations.
        guidance_interval: noise levels between which guidance acts, in all ways of painting but the one that the others
            are compared with; default: the settings', in all.
        recipe: YAML file with the settings; default: the run's, else the shipped `tiny_ocr.yaml`.
        prompts: prompt file; default: the settings' held-out file, its first `evaluation.num_prompts`.
        overrides: changes of settings, `section.key=value`.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError, CheckpointError, PromptError, RewardError: before any model loads.
    """
    console = console or Console(quiet=True)
    config = measuring_config("steps", (policy,), recipe, DEFAULT_RECIPE, prompts, overrides)
    ways = ways_to_paint(steps, guidance_interval, config)
    chosen = load_prompts(config.prompts.heldout)[: config.evaluation.num_prompts]
    check_rewards(config)
    path = check_policy(policy, chosen, config)
    with activity(console, "loading libraries"):
        check_model(path)
        check_guidance(config, path, [(way.num_steps, way.guidance_interval) for way in ways])
        from blip3o_grpo.cluster import ray_cluster
        from blip3o_grpo.policies import BLIP3oNext
        from blip3o_grpo.rollout import RolloutPipeline

    with ExitStack() as stack:
        with activity(console, "starting Ray"):
            stack.enter_context(ray_cluster(config))
        with activity(console, f"loading the policy {path} and {len(config.rewards)} rewards into workers"):
            pipeline = stack.enter_context(closing(RolloutPipeline.launch(config, path)))
            pipeline.sync_weights(BLIP3oNext.from_pretrained(path, parts=("ar",)).ar.state_dict(), version=0)
        fit_rewards(pipeline, chosen, config, RunFolder(policy))
        with Bar(console, "decoding and scoring", len(ways) * len(chosen), unit="prompt") as bar:
            batches = pipeline.collect_each(chosen, "steps", ways, progress=bar.see)
    return summarise_steps(dict(zip(ways, batches, strict=True)), [reward.name for reward in config.rewards])


def ways_to_paint(
    steps: Sequence[int] | None, guidance_interval: tuple[float, float] | None, config: RunConfig
) -> list[Denoising]:
    """Numbers of steps in order, each once; the last way is what the others are compared with.

    Raises:
        ConfigError: nothing to compare, a number below 1, or no interval of noise levels.
    """
    evaluated = config.evaluation.num_diffusion_steps or config.rollout.num_diffusion_steps
    chosen = sorted(set(steps if steps is not None else (config.rollout.num_diffusion_steps, evaluated)))
    given = guidance_interval is not None
    if len(chosen) < 2 - given:
        raise ConfigError(
            f"steps: {', '.join(map(str, chosen))} is nothing to compare; give at least two different numbers, such as "
            f"--steps {config.rollout.num_diffusion_steps},30"
        )
    if chosen[0] < 1:
        raise ConfigError(f"steps: {chosen[0]} diffusion steps decode nothing; numbers start at 1")
    whole = config.rollout.guidance_interval
    if not given:
        return [Denoising(number, whole) for number in chosen]
    low, high = guidance_interval
    if not 0 <= low < high <= 1:
        raise ConfigError(f"guidance interval {low:g},{high:g}: give LOW,HIGH with 0 <= LOW < HIGH <= 1, such as 0.3,1")
    if guidance_interval == whole:
        raise ConfigError(f"guidance interval {low:g},{high:g}: that is the settings' own, nothing to compare")
    if config.rollout.guidance_scale == 1:
        raise ConfigError("guidance interval: there is no guidance (rollout.guidance_scale=1)")
    return [*(Denoising(number, guidance_interval) for number in chosen), Denoising(chosen[-1], whole)]


def fit_rewards(pipeline: RolloutPipeline, prompts: Sequence[Prompt], config: RunConfig, run: RunFolder) -> None:
    """Rewards that compare with the starting policy's images know those of the run, else those of this policy."""
    if not pipeline.needs_reference():
        return
    if is_regular(run.reward_state):
        pipeline.load_reward_state(read_reward_state(run.reward_state))
    else:
        pipeline.fit_rewards(collect_heldout(pipeline, prompts, config), HELDOUT_STEP)


def summarise_steps(batches: dict[Denoising, RolloutBatch], rewards: Sequence[str]) -> StepsResult:
    """Compare scored batches of the same completions with the last; groups that one had to skip are left out of all."""
    kept = set.intersection(*({group.prompt.id for group in batch.groups} for batch in batches.values()))
    scores = {
        way: {
            name: np.array(
                [
                    [np.nan if rollout.rewards[name] is None else rollout.rewards[name] for rollout in group.rollouts]
                    for group in batch.groups
                    if group.prompt.id in kept
                ]
            )
            for name in rewards
        }
        for way, batch in batches.items()
    }
    most, size = list(batches)[-1], len(next(iter(batches.values())).groups[0].rollouts)
    rows = [
        StepsRow(
            name,
            way.num_steps,
            way.guidance_interval,
            over_prompts({g: float(np.nanmean(row)) for g, row in enumerate(scores[way][name]) if not_nan(row)}),
            batch.seconds["decode"] / (len(batch.groups) * size),
            None if way == most else agreement(scores[way][name], scores[most][name]),
        )
        for name in rewards
        for way, batch in batches.items()
        if not_nan(scores[way][name])
    ]
    return StepsResult(len(kept), size, tuple(rows))


def agreement(fewer: np.ndarray, most: np.ndarray) -> Agreement:
    """Agreement of two scorings `[num_groups, group_size]` of the same completions; NaN = not scored."""
    found = group_agreements(fewer, most)
    known = [(low[np.isfinite(low)], high[np.isfinite(high)]) for low, high in zip(fewer, most, strict=True)]
    lost = {
        group: float(np.ptp(low) <= SAME)
        for group, (low, high) in enumerate(known)
        if len(low) and len(high) and np.ptp(high) > SAME
    }
    return Agreement(
        within=over_prompts(found["spearman"], paired=True),  # as differences, correlations lie in [-1, 1]
        num_groups=len(found["spearman"]),
        spread_lost=over_prompts(lost),
        same_order=over_prompts(found["same_order"]),
        overall=overall_correlation(fewer, most),
    )


def not_nan(scores: np.ndarray) -> bool:
    """Whether anything was scored."""
    return bool(np.isfinite(scores).any())


def overall_correlation(fewer: np.ndarray, most: np.ndarray) -> Estimate | None:
    """Spearman's correlation over all images, and its interval; None where all images score the same."""

    def correlation(rows: np.ndarray) -> float:
        x, y = fewer[rows].ravel(), most[rows].ravel()
        both = np.isfinite(x) & np.isfinite(y)
        x, y = x[both], y[both]
        return rank_correlation(x, y) if len(x) and np.ptp(x) > SAME and np.ptp(y) > SAME else float("nan")

    found = resampled_estimate(correlation, len(fewer))
    return found if np.isfinite(found.mean) else None
