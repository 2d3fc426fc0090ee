"""`blip3o-grpo plan --tune N`: the placements on N GPUs that fit, the fastest first, by computed or measured times.

Tried are whole GPUs for trainers, samplers and decoders in every division; every GPU in every role, with a rank, a
sampler and a decoder each; on two GPUs also sampler and decoder on one. Where GPUs are shared, stages add up. Rewards
keep the GPUs that the recipe gives them; on CPUs their replicas are as many as keep up with samplers and decoders, and
at most one for each part of a step. Other keys stay as the recipe has them, and what a run would refuse is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypedDict

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.configs.cluster import ClusterSection
from blip3o_grpo.configs.loader import describe_mistakes
from blip3o_grpo.planning.times import StageTimes, calls_of_step, gpu_seconds, predict, stage_work
from blip3o_grpo.rollout.placement.gpus import EPSILON
from blip3o_grpo.rollout.placement.resources import num_reward_workers
from blip3o_grpo.terminal import show

Cluster = dict[str, float]
"""Keys of the section `cluster`, as one writes them."""
SHOWN = 5
GPUS_OF_A_NODE = 8
MOST_GPUS = 4096
"""As many as workers of one kind (`ClusterSection`)."""
ONE_GPU = {"gpus_per_trainer": 0.35, "gpus_per_sampler": 0.35, "gpus_per_decoder": 0.3}
TWO_GPUS = {"gpus_per_trainer": 1, "gpus_per_sampler": 0.5, "gpus_per_decoder": 0.5}
EVERY_ROLE = {"gpus_per_trainer": 0.6, "gpus_per_sampler": 0.2, "gpus_per_decoder": 0.2}
"""More than half of a GPU for each rank (`rollout/placement/gpus.py`)."""


class Proposal(TypedDict):
    """One placement that fits."""

    cluster: Cluster
    step_seconds: float
    busy_share: float
    """Of the GPUs' time, in [0, 1]."""
    images_per_second: float
    gpu_hours: float
    """Of the whole run, evaluations left out."""


def proposals(
    config: RunConfig,
    times: StageTimes,
    num_gpus: int,
    check: Callable[[RunConfig], object],
    *,
    shared: bool = True,
) -> list[Proposal]:
    """The fastest placements on `num_gpus` GPUs that fit, at most `SHOWN`, the fastest first.

    Args:
        config: of the run.
        times: of its stages.
        num_gpus: 1 or more.
        check: raises ConfigError where a placement cannot be or does not fit; it is asked in the order of speed, and no
            more often than needed, since there are thousands of placements on many GPUs.
        shared: also try every GPU in every role.

    Raises:
        ConfigError: none fits; the last refusal says what is missing.
    """
    if not 1 <= num_gpus <= MOST_GPUS:
        raise ConfigError(f"--tune {num_gpus}: give a number of GPUs, 1 to {MOST_GPUS}")
    check_reward_gpus(config, num_gpus)
    possible = []
    for changes in (*divisions(config, num_gpus), *(every_role(config, num_gpus) if shared else ())):
        changes["nodes"], changes["gpus_per_node"] = nodes_of(config, num_gpus)
        changes["rewards"] = rewards_that_keep_up(with_cluster(config, changes), times)
        possible.append(propose(with_cluster(config, changes), changes, times, num_gpus))
    found, refusal = [], None
    for proposal in sorted(possible, key=lambda proposal: proposal["step_seconds"]):
        try:
            check(as_read(with_cluster(config, proposal["cluster"])))
        except ConfigError as error:
            refusal = error
            continue
        found.append(proposal)
        if len(found) == SHOWN:
            break
    if not found:
        raise ConfigError(f"--tune {num_gpus}: no placement fits; the last one tried: {refusal}")
    return found


def gpus_of_rewards(config: RunConfig) -> int:
    """Whole GPUs that the recipe gives to rewards."""
    return math.ceil(num_reward_workers(config) * config.cluster.gpus_per_reward - EPSILON)


def check_reward_gpus(config: RunConfig, num_gpus: int) -> None:
    """Refuse too few GPUs for the other roles.

    Raises:
        ConfigError: with the smallest number that is enough.
    """
    taken = gpus_of_rewards(config)
    if taken and num_gpus < taken + len(ONE_GPU):
        raise ConfigError(
            f"--tune {num_gpus}: rewards have {taken} of them (cluster.gpus_per_reward="
            f"{config.cluster.gpus_per_reward:g}), and trainer, sampler and decoder want one each; give "
            f"{taken + len(ONE_GPU)} or more"
        )


def divisions(config: RunConfig, num_gpus: int) -> Iterator[Cluster]:
    """Changes of the section `cluster`: every way to give each GPU one role."""
    if num_gpus == 1:
        yield {"trainers": 1, "samplers": 1, "decoders": 1, **ONE_GPU}
    if num_gpus == 2:
        yield {"trainers": 1, "samplers": 1, "decoders": 1, **TWO_GPUS}
    left = num_gpus - gpus_of_rewards(config)
    for trainers in range(1, left - 1):
        if config.rollout.prompts_per_step % trainers:
            continue  # every rank has the same number of prompts
        for samplers in range(1, left - trainers):
            decoders = left - trainers - samplers
            yield {"trainers": trainers, "samplers": samplers, "decoders": decoders, **dict.fromkeys(ONE_GPU, 1)}


def every_role(config: RunConfig, num_gpus: int) -> list[Cluster]:
    """A rank, a sampler and a decoder on each of two or more GPUs; only where the prompts of a step divide over the
    ranks, and rewards need no GPU."""
    if num_gpus < 2 or config.rollout.prompts_per_step % num_gpus or config.cluster.gpus_per_reward:
        return []
    return [{"trainers": num_gpus, "samplers": num_gpus, "decoders": num_gpus, **EVERY_ROLE}]


def with_cluster(config: RunConfig, changes: Cluster) -> RunConfig:
    """The run on another cluster section, which alone is checked: there are thousands of them."""
    section = ClusterSection.model_validate(config.cluster.model_dump() | changes)
    return config.model_copy(update={"cluster": section})


def as_read(config: RunConfig) -> RunConfig:
    """The run as one that was read: what other sections say must suit its workers too.

    Raises:
        ConfigError: it does not, such as a micro-batch that does not divide a rank's share.
    """
    try:
        return RunConfig.model_validate(config.model_dump(exclude_unset=True))
    except ValidationError as error:
        raise ConfigError(describe_mistakes(RunConfig, error)) from None


def nodes_of(config: RunConfig, num_gpus: int) -> tuple[int, int]:
    """Nodes and GPUs of each: the recipe's nodes where they have the GPUs, else nodes of at most 8."""
    per_node = config.cluster.gpus_per_node or min(num_gpus, GPUS_OF_A_NODE)
    return -(-num_gpus // per_node), per_node


def rewards_that_keep_up(config: RunConfig, times: StageTimes) -> int:
    """Replicas of every reward that score as fast as samplers and decoders work.

    A part of a step is scored by one replica, so more of them than parts would idle. Rewards on GPUs keep the recipe's.
    """
    given = config.cluster.rewards
    if config.cluster.gpus_per_reward:
        return given
    seconds = predict(config, times)
    enough = math.ceil(stage_work(config, times)["score"] / max(seconds["sample"], seconds["decode"]))
    return max(given, min(enough, calls_of_step(config)[1], MOST_GPUS))


def propose(config: RunConfig, changes: Cluster, times: StageTimes, num_gpus: int) -> Proposal:
    """What a placement that fits comes to."""
    seconds = predict(config, times)["step at best" if num_gpus > 1 else "step at worst"]
    images = config.rollout.images_per_step / config.trainer.num_iterations
    return {
        "cluster": changes,
        "step_seconds": seconds,
        "busy_share": gpu_seconds(config, times) / (num_gpus * seconds),
        "images_per_second": images / seconds,
        "gpu_hours": config.trainer.max_steps * seconds * num_gpus / 3600,
    }


def show_proposals(found: list[Proposal], console: Console) -> None:
    """Print the fastest as a table, and the best one as keys to write."""
    table = Table(
        "trainers / samplers / decoders", "step (s)", "GPUs busy", "images/s", "GPU hours", title="placements"
    )
    for proposal in found:
        cluster = proposal["cluster"]
        table.add_row(
            " / ".join(f"{cluster[kind]:g}" for kind in ("trainers", "samplers", "decoders")),
            f"{proposal['step_seconds']:.1f}",
            f"{proposal['busy_share']:.0%}",
            f"{proposal['images_per_second']:.1f}",
            f"{proposal['gpu_hours']:.0f}",
        )
    console.print(table)
    show(console, "write: " + " ".join(f"cluster.{key}={value:g}" for key, value in found[0]["cluster"].items()))
