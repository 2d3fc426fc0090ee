"""The simulation against finished runs: constants fitted to one of them, predictions for all, from that alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError, RunConfig, load_run_config
from blip3o_grpo.planning.times import WARMUP_STEPS, check_measured
from blip3o_grpo.run.metrics import read_metrics
from scripts.cluster_events import Costs, Outcome, Simulation
from scripts.cluster_layout import (
    divide,
    on_cores,
)

ROUNDS, CLOSE = 60, 1e-4
"""Of fitting constants: at most so many, until all busy seconds are that near."""


@dataclass(frozen=True)
class Measured:
    """Medians over a run's steps, in seconds."""

    run: Path
    config: RunConfig
    steps: int
    busy_s: Mapping[str, float]
    """As `Outcome.busy_s`, without `train`."""
    rollout_s: float
    train_s: float
    step_s: float


def read_run(run: Path) -> Measured:
    """A run's own times.

    Raises:
        ConfigError: no run folder, too few steps, or metrics without the seconds of each reward.
    """
    check_measured(run)
    config = load_run_config(run / "config.yaml")
    check_simulated(config)
    lines = read_metrics(run / "metrics.jsonl")[WARMUP_STEPS:]
    if not lines:
        raise ConfigError(f"{run}: at least {WARMUP_STEPS + 1} steps are needed to measure anything")
    stages = ["sample", "decode", *(f"score/{reward.name}" for reward in config.rewards)]
    if missing := [stage for stage in stages if f"time/{stage}" not in lines[0]]:
        raise ConfigError(f"{run}/metrics.jsonl: no time/{missing[0]}; the run is of an older version, repeat it")

    def median(name: str) -> float:
        return statistics.median(line[f"time/{name}"] for line in lines)

    rollout_s, step_s = median("rollout"), median("step")
    # Medians do not add up, and a step is its rollouts and its training.
    busy_s = {stage: median(stage) for stage in stages}
    return Measured(run, config, len(lines), busy_s, rollout_s, step_s - rollout_s, step_s)


def check_simulated(config: RunConfig) -> None:
    """Refuse what is not simulated.

    Raises:
        ConfigError: several updates follow a batch, a completion is painted more than once, a step learns from other
            images than it draws, or more learns than the tokens.
    """
    rollout = config.rollout
    if config.trainer.num_iterations > 1:
        raise ConfigError(f"trainer.num_iterations={config.trainer.num_iterations}: one update a batch is simulated")
    if rollout.noises_per_completion > 1:
        raise ConfigError(
            f"rollout.noises_per_completion={rollout.noises_per_completion}: one image a completion is simulated"
        )
    if "head" in config.learn:
        raise ConfigError(f"learn: {', '.join(config.learn)}: learning tokens are simulated; give learn: [tokens]")
    for key in ("dynamic_sampling", "subset_size", "replay"):
        if getattr(rollout, key):
            raise ConfigError(f"rollout.{key}: steps that learn from all that they draw are simulated; leave it out")


def simulate_cores(config: RunConfig, costs: Costs, cores: int) -> Outcome:
    """The run on so many cores."""
    return Simulation(on_cores(config, costs, cores), divide(config), config.rollout.max_staleness).run()


def fit_costs(measured: Measured, cores: int) -> Costs:
    """Costs with which the simulated run is as busy as the measured one.

    Busy seconds count waiting for a core, so they are no costs; these are found by repeated correction. What a step's
    rollouts take beyond that counts as time in which no stage works.
    """
    config = measured.config
    images = config.rollout.prompts_per_step * config.rollout.group_size
    costs = Costs(
        sample=measured.busy_s["sample"] / images,
        decode=measured.busy_s["decode"] / images,
        score={reward.name: measured.busy_s[f"score/{reward.name}"] / images for reward in config.rewards},
        train=0.0,
    )
    for _ in range(ROUNDS):
        busy = simulate_cores(config, costs, cores).busy_s
        ratios = {stage: seconds / busy[stage] for stage, seconds in measured.busy_s.items() if busy[stage]}
        if all(abs(ratio - 1) < CLOSE for ratio in ratios.values()):
            break
        costs = replace(
            costs,
            sample=costs.sample * ratios["sample"],
            decode=costs.decode * ratios["decode"],
            score={name: cost * ratios.get(f"score/{name}", 1.0) for name, cost in costs.score.items()},
        )
    rollouts = simulate_cores(config, costs, cores).rollout_s
    threads = on_cores(config, costs, cores).trainers[0].threads
    share = images / config.cluster.trainers
    return replace(
        costs,
        collect_s=max(0.0, measured.rollout_s - rollouts),
        train=measured.train_s * min(threads, cores / config.cluster.trainers) / share,
    )


def compare(runs: Sequence[Path], cores: int) -> list[dict[str, Any]]:
    """Measured and predicted seconds of every run, with the costs of the first.

    Raises:
        ConfigError: as `read_run`, or a run of another recipe than the first.
    """
    measured = [read_run(run) for run in runs]
    first = measured[0]
    for other in measured[1:]:
        check_comparable(first, other)
    costs = fit_costs(first, cores)
    rows = []
    for run in measured:
        outcome = simulate_cores(run.config, costs, cores)
        predicted = {stage: outcome.busy_s[stage] for stage in run.busy_s}
        predicted |= {"rollout": outcome.rollout_s, "train": outcome.train_s, "step": outcome.step_s}
        seconds = dict(run.busy_s) | {"rollout": run.rollout_s, "train": run.train_s, "step": run.step_s}
        cluster = run.config.cluster
        rows.append(
            {
                "run": str(run.run),
                "steps": run.steps,
                "workers": {kind: getattr(cluster, kind) for kind in ("trainers", "samplers", "decoders", "rewards")},
                "fitted": run is first,
                "seconds": {
                    name: {"measured": value, "predicted": predicted[name], "difference": predicted[name] / value - 1}
                    for name, value in seconds.items()
                },
            }
        )
    return rows


def check_comparable(first: Measured, other: Measured) -> None:
    """Refuse runs whose stages cost something else.

    Raises:
        ConfigError: names the section that differs.
    """
    for section in ("policy", "rollout", "rewards", "trainer"):
        ours, theirs = getattr(first.config, section), getattr(other.config, section)
        if section == "trainer":
            ours, theirs = (part.model_copy(update={"max_steps": 1}) for part in (ours, theirs))
        if ours != theirs:
            raise ConfigError(
                f"{other.run}: its section {section} is not that of {first.run}; only the numbers of workers may differ"
            )


def comparison_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As Markdown."""
    lines = ["| run | seconds of a step | measured | predicted | difference |", "|---|---|---|---|---|"]
    for row in rows:
        workers = ", ".join(f"{count} {kind}" for kind, count in row["workers"].items())
        about = f"{workers}; medians of {row['steps']} steps" + ("; constants fitted to it" if row["fitted"] else "")
        for name, seconds in row["seconds"].items():
            busy = "" if name in ("rollout", "train", "step") else ", busy"
            lines.append(
                f"| {about} | {name}{busy} | {seconds['measured']:.2f} | {seconds['predicted']:.2f} | "
                f"{seconds['difference']:+.1%} |"
            )
            about = ""
    return lines
