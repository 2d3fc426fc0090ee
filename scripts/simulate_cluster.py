"""How long would a step take there? A discrete-event simulation of steps, held against runs that were measured.

    python scripts/simulate_cluster.py compare RUN [RUN ...]       # constants of the first run, predictions for all
    python scripts/simulate_cluster.py scale blip3o_next_ocr --card h200 --gpus 8,64,1024 [section.key=value ...]

`compare` reads `metrics.jsonl` of finished runs on this kind of machine: what a stage costs is fitted to the busy
seconds of the first run, and the other runs, with other numbers of workers, are predicted from that alone. `scale`
takes computed or calibrated times (`grpo/planning`), simulates the placements that `plan --tune` proposes for each
number of GPUs, and prints of the fastest what a step takes: with separate pools, with separate pools one step
off-policy, and with every GPU in every role in turn. Nothing but `compare`'s runs is measured: the links between GPUs
and nodes are assumed (`cluster_layout.Links`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from blip3o_grpo.api import load_recipe  # noqa: E402
from blip3o_grpo.configs import ConfigError, RunConfig, load_run_config  # noqa: E402
from blip3o_grpo.configs.atomic import write_atomically  # noqa: E402
from blip3o_grpo.planning.calibration import calibrated_card, calibrated_times  # noqa: E402
from blip3o_grpo.planning.cards import card  # noqa: E402
from blip3o_grpo.planning.costs import computed_times  # noqa: E402
from blip3o_grpo.planning.plan import check_placement, names_released  # noqa: E402
from blip3o_grpo.planning.sizes import Footprint  # noqa: E402
from blip3o_grpo.planning.times import WARMUP_STEPS, StageTimes, check_measured  # noqa: E402
from blip3o_grpo.planning.tune import proposals, with_cluster  # noqa: E402
from blip3o_grpo.policies import resolve_policy_path  # noqa: E402
from blip3o_grpo.policies.blip3o_next.released import write_configs  # noqa: E402
from blip3o_grpo.run.metrics import read_metrics  # noqa: E402
from scripts.cluster_events import Cluster, Costs, Outcome, Simulation  # noqa: E402
from scripts.cluster_layout import (  # noqa: E402
    Links,
    Shapes,
    check_co_located,
    co_located,
    divide,
    divide_co_located,
    on_cores,
    on_gpus,
    read_shapes,
)

GB = 1e9
ROUNDS, CLOSE = 60, 1e-4
"""Of fitting constants: at most so many, until all busy seconds are that near."""
DEFAULT_CARD = "h200"
REPLICAS_OF_A_GPU = 2
"""Of every reward, beside a GPU that has every role."""
SEPARATE, STALE, IN_TURNS = "separate", "separate, one step off-policy", "every GPU in every role"
STEPS = 2
"""Simulated after the warm-up: all are alike."""
LEAST_GPUS = 3
"""One for each role."""
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


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
    check_updates(config)
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


def check_updates(config: RunConfig) -> None:
    """Refuse what is not simulated.

    Raises:
        ConfigError: several updates follow a batch.
    """
    if config.trainer.num_iterations > 1:
        raise ConfigError(f"trainer.num_iterations={config.trainer.num_iterations}: one update a batch is simulated")


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


@dataclass(frozen=True)
class Setting:
    """What `scale` simulates."""

    config: RunConfig
    policy_path: Path
    card: str
    calibration: Path | None
    links: Links
    fit: bool
    """Whether smaller chunks and parts than the recipe's are tried too."""
    decoders_join: bool = False
    """Whether decoders get weights as samplers do; no run can do that yet."""
    images_per_score: int | None = None
    """Images of a reward's call; None: those of a decoder's. No run can do anything else yet."""


@dataclass(frozen=True)
class Row:
    """One placement of one number of GPUs."""

    gpus: int
    mode: str
    config: RunConfig
    outcome: Outcome
    busy: Mapping[str, float]
    """Share of a pool's time by stage, and `GPUs`: of all GPUs."""

    @property
    def images_per_s(self) -> float:
        """Of a step."""
        rollout = self.config.rollout
        return rollout.prompts_per_step * rollout.group_size / self.outcome.step_s

    @property
    def placement(self) -> str:
        """Trainers, samplers and decoders."""
        cluster = self.config.cluster
        return f"{cluster.trainers} / {cluster.samplers} / {cluster.decoders}"

    @property
    def calls(self) -> str:
        """Groups of an engine call, and images of a decoder's."""
        return f"{self.config.rollout.prompts_per_chunk} / {self.config.rollout.images_per_decode}"

    def values(self) -> dict[str, Any]:
        """For JSON."""
        out, rollout = self.outcome, self.config.rollout
        return {
            "gpus": self.gpus,
            "mode": self.mode,
            "trainers / samplers / decoders": self.placement,
            "prompts_per_chunk / images_per_decode": self.calls,
            "rewards": self.config.cluster.rewards,
            "images": rollout.prompts_per_step * rollout.group_size,
            "images_per_s": self.images_per_s,
            "busy": dict(self.busy),
            **{key: getattr(out, key) for key in ("step_s", "rollout_s", "sync_s", "train_s")},
            **{key: getattr(out, key) for key in ("store_out_bytes", "store_in_bytes", "store_bytes")},
        }


def scale(setting: Setting, num_gpus: int, known: dict[int, dict[str, Footprint]]) -> Iterator[Row]:
    """The three ways to run on so many GPUs, each the fastest of what is tried.

    Args:
        setting: what is simulated.
        num_gpus: 3 or more.
        known: footprints of this recipe by number of ranks, filled here.

    Raises:
        ConfigError: no placement fits.
    """
    policy = setting.policy_path
    config = with_cluster(setting.config, {"gpu_memory_gb": card(setting.card).memory_gb})
    if setting.calibration:
        times = calibrated_times(config, policy, setting.calibration)
    else:
        times = computed_times(config, policy, setting.card)
    shapes = read_shapes(policy, times, config)
    both = [with_staleness(config, staleness) for staleness in (0, 1)]
    found = []
    for one in both:
        check = partial(check_placement, policy_path=policy, known=known)
        found += [p["cluster"] for p in proposals(one, times, num_gpus, check) if p["cluster"] not in found]
    for mode, one in zip((SEPARATE, STALE), both, strict=True):
        rows = [
            separate(setting, tried, times, shapes, num_gpus, mode)
            for cluster in found
            for tried in smaller_calls(with_cluster(one, cluster), setting.fit)
        ]
        yield min(rows, key=lambda row: row.outcome.step_s)
    check_co_located(config, policy, card(setting.card).memory_gb)
    rows = [in_turns(setting, tried, times, shapes, num_gpus) for tried in smaller_calls(config, setting.fit)]
    yield min(rows, key=lambda row: row.outcome.step_s)


def with_staleness(config: RunConfig, staleness: int) -> RunConfig:
    """The recipe in step, or one step off-policy."""
    rollout = config.rollout.model_copy(update={"max_staleness": staleness})
    return config.model_copy(update={"rollout": rollout})


def smaller_calls(config: RunConfig, fit: bool) -> list[RunConfig]:
    """The recipe, and with `fit` its chunks and parts in halves down to one group."""
    rollout, found = config.rollout, []
    groups = max(1, rollout.images_per_decode // rollout.group_size)
    for per_chunk in halves(rollout.prompts_per_chunk) if fit else [rollout.prompts_per_chunk]:
        for per_part in halves(groups) if fit else [groups]:
            changes = {"prompts_per_chunk": per_chunk, "images_per_decode": per_part * rollout.group_size}
            found.append(config.model_copy(update={"rollout": rollout.model_copy(update=changes)}))
    return found


def halves(number: int) -> list[int]:
    """Down to 1."""
    return [number, *halves(number // 2)] if number > 1 else [1]


def separate(setting: Setting, config: RunConfig, times: StageTimes, shapes: Shapes, num_gpus: int, mode: str) -> Row:
    """Each GPU with one role."""
    cluster = on_gpus(config, times, shapes, setting.links, setting.decoders_join)
    work = divide(config, setting.images_per_score)
    outcome = Simulation(cluster, work, config.rollout.max_staleness).run(STEPS)
    return make_row(config, cluster, outcome, num_gpus, mode)


def in_turns(setting: Setting, config: RunConfig, times: StageTimes, shapes: Shapes, num_gpus: int) -> Row:
    """Each GPU in every role; of GPUs over which the prompts do not divide, the largest number over which they do."""
    ranks = max(n for n in range(1, num_gpus + 1) if config.rollout.prompts_per_step % n == 0)
    replicas = ranks * REPLICAS_OF_A_GPU
    turns = with_cluster(config, {"trainers": ranks, "samplers": ranks, "decoders": ranks, "rewards": replicas})
    whole = turns.rollout.model_copy(update={"prompts_per_chunk": turns.rollout.prompts_per_step // ranks})
    turns = turns.model_copy(update={"rollout": whole})
    cluster = co_located(turns, times, shapes, setting.links, ranks)
    outcome = Simulation(cluster, divide_co_located(turns, replicas, setting.images_per_score)).run(STEPS)
    return make_row(turns, cluster, outcome, num_gpus, IN_TURNS)


def make_row(config: RunConfig, cluster: Cluster, outcome: Outcome, num_gpus: int, mode: str) -> Row:
    """With the busy share of every pool."""
    pools = {"sample": cluster.samplers, "decode": cluster.decoders, "train": cluster.trainers}
    busy = {stage: outcome.busy_s[stage] / len(pool) / outcome.step_s for stage, pool in pools.items()}
    first = next(iter(cluster.rewards))
    busy["score"] = outcome.busy_s[f"score/{first}"] / len(cluster.rewards[first]) / outcome.step_s
    busy["GPUs"] = sum(outcome.busy_s[stage] for stage in pools) / num_gpus / outcome.step_s
    return Row(num_gpus, mode, config, outcome, busy)


COLUMNS = {
    "GPUs": lambda row, first: f"{row.gpus}",
    "way": lambda row, first: row.mode,
    "trainers / samplers / decoders": lambda row, first: row.placement,
    "groups a chunk / images a part": lambda row, first: row.calls,
    "step (s)": lambda row, first: f"{row.outcome.step_s:.1f}",
    "images/s": lambda row, first: f"{row.images_per_s:.1f}",
    "a GPU's, of the first row's": lambda row, first: f"{row.images_per_s / row.gpus / first:.0%}",
    "busy: trainers / samplers / decoders / all GPUs": lambda row, first: " / ".join(
        f"{row.busy[stage]:.0%}" for stage in ("train", "sample", "decode", "GPUs")
    ),
    "weight sync (s)": lambda row, first: f"{row.outcome.sync_s:.1f}",
    "object store out of / into the busiest node (GB)": lambda row, first: " / ".join(
        f"{size / GB:.1f}" for size in (row.outcome.store_out_bytes, row.outcome.store_in_bytes)
    ),
}


def scale_lines(rows: Sequence[Row]) -> list[str]:
    """As Markdown."""
    first = rows[0].images_per_s / rows[0].gpus
    cells = [list(COLUMNS), ["---"] * len(COLUMNS)] + [[cell(row, first) for cell in COLUMNS.values()] for row in rows]
    return [f"| {' | '.join(line)} |" for line in cells]


@contextmanager
def policy_folder(name: str) -> Iterator[Path]:
    """The policy's own folder, or one with the configs of the released sizes."""
    if not names_released(name):
        yield resolve_policy_path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_configs(Path(folder), 1)
        yield Path(folder)


def grown(config: RunConfig, num_gpus: int, base: int) -> RunConfig:
    """The recipe with a batch in proportion to the GPUs; what it says holds for `base` of them."""
    prompts = config.rollout.prompts_per_step * num_gpus // base
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"prompts_per_step": prompts})})


def numbers_of_gpus(text: str) -> list[int]:
    """Of `8,64`.

    Raises:
        ConfigError: not numbers, or too few GPUs for three roles.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < LEAST_GPUS:
        raise ConfigError(f"--gpus {text}: give numbers of GPUs with commas, each {LEAST_GPUS} or more, as 8,64")
    return numbers


def card_of(args: argparse.Namespace) -> str:
    """Name of the card.

    Raises:
        ConfigError: not known, or the calibration is of another one.
    """
    if args.calibration:
        return calibrated_card(args.calibration, args.card)
    card(args.card or DEFAULT_CARD)
    return args.card or DEFAULT_CARD


def main() -> None:
    """Print Markdown, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    against = commands.add_parser("compare", help="hold the simulation against finished runs")
    against.add_argument("runs", nargs="+", type=Path, help="run folders; what a stage costs is fitted to the first")
    against.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="of the machine of these runs")
    larger = commands.add_parser("scale", help="predict a recipe on other numbers of GPUs")
    larger.add_argument("recipe")
    larger.add_argument("overrides", nargs="*", help="section.key=value changes to the recipe")
    larger.add_argument("--card", help=f"a100, h100, h200; default: the calibration's, else {DEFAULT_CARD}")
    larger.add_argument("--calibration", type=Path, help="file of scripts/bench_gpu.py; else times are computed")
    larger.add_argument("--gpus", default=",".join(map(str, GPUS)), help="numbers of GPUs, with commas")
    larger.add_argument("--batch", choices=("fixed", "grown"), default="fixed", help="grown: in proportion to the GPUs")
    larger.add_argument("--base", type=int, default=8, help="with --batch grown: GPUs that the recipe's batch is for")
    larger.add_argument("--fit", action="store_true", help="try smaller chunks and parts than the recipe's too")
    larger.add_argument("--decoders-join", action="store_true", help="as if decoders got weights as samplers do")
    larger.add_argument("--images-per-score", type=int, help="as if rewards took so many images a call")
    for each in (against, larger):
        each.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    try:
        if args.command == "compare":
            found = compare(args.runs, args.cores)
            lines = comparison_lines(found)
        else:
            config = load_recipe(args.recipe, *args.overrides)
            check_updates(config)
            name, rows = card_of(args), []
            with policy_folder(config.policy.path) as folder:
                setting = Setting(
                    config,
                    folder,
                    name,
                    args.calibration,
                    Links(),
                    args.fit,
                    args.decoders_join,
                    args.images_per_score,
                )
                known: dict[int, dict[str, Footprint]] = {}
                for num_gpus in numbers_of_gpus(args.gpus):
                    if args.batch == "grown":
                        setting, known = replace(setting, config=grown(config, num_gpus, args.base)), {}
                    rows += scale(setting, num_gpus, known)
            found, lines = [row.values() for row in rows], scale_lines(rows)
    except ConfigError as error:
        parser.exit(2, f"error: {error}\n")
    sys.stdout.write("\n".join(lines) + "\n")
    if args.json:
        write_atomically(args.json, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
