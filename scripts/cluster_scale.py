"""A recipe on other numbers of GPUs: the fastest placements in the simulation, in each way of using them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.planning.calibration import calibrated_times
from blip3o_grpo.planning.cards import card
from blip3o_grpo.planning.costs import computed_times
from blip3o_grpo.planning.plan import check_placement
from blip3o_grpo.planning.sizes import Footprint
from blip3o_grpo.planning.times import StageTimes
from blip3o_grpo.planning.tune import proposals, with_cluster
from scripts.cluster_events import Cluster, Outcome, Simulation
from scripts.cluster_layout import (
    Links,
    Shapes,
    check_co_located,
    co_located,
    divide,
    divide_co_located,
    on_gpus,
    read_shapes,
)

GB = 1e9
REPLICAS_OF_A_GPU = 2
"""Of every reward, beside a GPU that has every role."""
SEPARATE, STALE, SHARED = "separate", "separate, one step off-policy", "every GPU in every role"
IN_TURNS = "every GPU in every role, its own prompts"
STEPS = 2
"""Simulated after the warm-up: all are alike."""


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
    """The ways to run on so many GPUs, each the fastest of what is tried.

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
        tried = [proposal["cluster"] for proposal in proposals(one, times, num_gpus, check, shared=False)]
        found += [cluster for cluster in tried if cluster not in found]
    for mode, one in zip((SEPARATE, STALE), both, strict=True):
        rows = [
            as_placed(setting, tried, times, shapes, num_gpus, mode)
            for cluster in found
            for tried in smaller_calls(with_cluster(one, cluster), setting.fit)
        ]
        yield min(rows, key=lambda row: row.outcome.step_s)
    rows = [
        as_placed(setting, tried, times, shapes, num_gpus, SHARED)
        for proposal in proposals(config, times, num_gpus, check)
        if proposal["cluster"]["gpus_per_trainer"] < 1
        for tried in smaller_calls(with_cluster(config, proposal["cluster"]), setting.fit)
    ]
    if rows:  # where the prompts divide over the GPUs, and all roles fit
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


def as_placed(setting: Setting, config: RunConfig, times: StageTimes, shapes: Shapes, num_gpus: int, mode: str) -> Row:
    """Workers on GPUs as a run places them."""
    cluster = on_gpus(config, times, shapes, setting.links, setting.decoders_join)
    work = divide(config, setting.images_per_score)
    outcome = Simulation(cluster, work, config.rollout.max_staleness).run(STEPS)
    return make_row(config, cluster, outcome, num_gpus, mode)


def in_turns(setting: Setting, config: RunConfig, times: StageTimes, shapes: Shapes, num_gpus: int) -> Row:
    """Each GPU in every role for its own prompts only, one role after the other, which no run does yet.

    Of GPUs over which the prompts do not divide, the largest number over which they do.
    """
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


def grown(config: RunConfig, num_gpus: int, base: int) -> RunConfig:
    """The recipe with a batch in proportion to the GPUs; what it says holds for `base` of them.

    Raises:
        ConfigError: the GPUs are too few for one prompt.
    """
    given = config.rollout.prompts_per_step
    prompts = given * num_gpus // base
    if not prompts:
        raise ConfigError(
            f"--base {base}: rollout.prompts_per_step={given} are less than one prompt on {num_gpus} GPUs; give "
            f"{given * num_gpus} or less"
        )
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"prompts_per_step": prompts})})
