"""Predicted seconds per stage, from constants that were measured with the same policy on the same kind of device.

`measured_times.json` holds what was measured for this repository, each entry with its source; `--measured RUN` takes
the constants from a run of the user's own. `--card` computes them instead (`costs.py`). Else there is no prediction.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError, RunConfig, load_run_config
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.policies import image_tokens, load_config, resolve_policy_path
from blip3o_grpo.rollout.placement.gpus import Gpu, place
from blip3o_grpo.rollout.placement.resources import num_replicas
from blip3o_grpo.run.metrics import read_metrics

DATA = Path(__file__).parent / "measured_times.json"
WARMUP_STEPS = 2  # of a measured run, left out: first calls compile and allocate


@dataclass(frozen=True)
class StageTimes:
    """Busy seconds of one worker for one image, and how they came about."""

    policy: dict[str, int]
    """Shape of the policy they hold for."""
    device: str
    """`cpu` or `gpu`, of samplers, decoders and trainers."""
    dtype: str
    sample: float
    decode_per_step: float
    """Of one diffusion step."""
    decode_once: float
    """Hidden states, captions and the image decoder; 0 in measured times, whose steps include it."""
    score: float
    """All rewards together."""
    train: float
    """One rank's seconds per rollout of its own share."""
    source: str
    sample_call: float = 0.0
    """Of an engine call, however many images it draws; `sample` has its share of one with the recipe's chunk. 0: not
    known apart."""
    learn: str = "tokens"
    """What `train` is of (`learning`)."""
    computed: tuple[str, ...] = ()
    """Stages of these that nobody measured (`sample`, `decode`, `score`, `train`)."""


def policy_shape(policy_path: Path) -> dict[str, int]:
    """What decides how long a policy takes: layers, width, image tokens and their vocabulary."""
    config = load_config(policy_path)
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "image_tokens": image_tokens(config).num_tokens,
        "image_vocabulary": config.num_image_tokens,
    }


def learning(config: RunConfig) -> str:
    """What a run learns, in words: of the head also from how many images of a completion."""
    head = f"head from {config.rollout.noises_per_completion} images of a completion"
    return " and ".join(head if half == "head" else half for half in sorted(config.learn, reverse=True))


def device_of(config: RunConfig) -> str:
    """`gpu` where samplers, decoders and trainers all have one, `cpu` where none has, else `mixed`."""
    shares = [config.cluster.shares[kind] > 0 for kind in ("sampler", "decoder", "trainer")]
    return "gpu" if all(shares) else "mixed" if any(shares) else "cpu"


def measure_run(run: Path) -> StageTimes:
    """Constants of a run: medians over its steps.

    Raises:
        ConfigError: no run, or too few steps.
    """
    check_measured(run)
    config = load_run_config(run / "config.yaml")
    lines = read_metrics(run / "metrics.jsonl")[WARMUP_STEPS:]
    if not any("time/sample" in line for line in lines):  # not in further steps on the same images
        raise ConfigError(f"--measured {run}: at least {WARMUP_STEPS + 1} steps are needed to measure anything")
    completions, images = config.rollout.completions_per_step, config.rollout.images_per_step

    def median(name: str) -> float:
        return statistics.median(line[f"time/{name}"] for line in lines if f"time/{name}" in line)

    return StageTimes(
        policy=policy_shape(resolve_policy_path(config.policy.path)),
        device=device_of(config),
        dtype=config.policy.dtype,
        sample=median("sample") / completions,
        decode_per_step=median("decode") / images / config.rollout.num_diffusion_steps,
        decode_once=0.0,
        score=median("score") / images,
        train=median("train") * config.cluster.trainers / completions,
        learn=learning(config),
        source=f"{run}, medians of {len(lines)} steps",
    )


def check_measured(run: Path) -> None:
    """Refuse what is no run folder.

    Raises:
        ConfigError: it has no `config.yaml`, or one that is no run's.
    """
    if not is_regular(run / "config.yaml"):
        raise ConfigError(f"{run}: no run folder (config.yaml is missing)")
    load_run_config(run / "config.yaml")


def measured_times(config: RunConfig, policy_path: Path, run: Path | None = None) -> StageTimes | None:
    """Constants for this policy on this kind of device: of `run`, else of the data file; None where there are none.

    Raises:
        ConfigError: `run` was of another policy, device or dtype, or learnt something else.
    """
    wanted: dict[str, Any] = {
        "policy": policy_shape(policy_path),
        "device": device_of(config),
        "dtype": config.policy.dtype,
        "learn": learning(config),
    }
    if run is not None:
        times = measure_run(run)
        for name, value in wanted.items():
            if getattr(times, name) != value:
                raise ConfigError(f"--measured {run}: its {name} is {getattr(times, name)}, this run's is {value}")
        return times
    for entry in json.loads(DATA.read_text(encoding="utf-8")):
        if all(entry.get(name, "tokens" if name == "learn" else None) == value for name, value in wanted.items()):
            return StageTimes(**entry)
    return None


def predict(config: RunConfig, times: StageTimes) -> dict[str, float]:
    """Seconds per optimiser step: each stage on its workers alone, and the bounds of a whole step.

    Stages of one step overlap; at best the rollout takes as long as its longest stage, at worst as long as all of them.
    With `rollout.max_staleness: 1` training overlaps with them too. Workers that share a GPU take turns there: stages
    of different kinds add up, and workers of one kind are no faster than one of them. Workers beyond a step's calls
    have nothing to do.
    Where several steps follow a batch, each has its share of the rollout's seconds.

    Raises:
        ConfigError: GPUs are shared in a way that cannot be.
    """
    cluster, gpus, work = config.cluster, shared_gpus(config), stage_work(config, times)
    chunks, parts = calls_of_step(config)
    stages = {
        "sample": work["sample"] / min(cluster.samplers, chunks) * on_one(gpus, "sampler"),
        "decode": work["decode"] / min(cluster.decoders, parts) * on_one(gpus, "decoder"),
        "score": work["score"] / min(reward_replicas(config), parts),
    }
    train = work["train"] / cluster.trainers
    turns = any({"sampler", "decoder"} <= gpu.keys() for gpu in gpus)
    drawn_s = stages["sample"] + stages["decode"] if turns else max(stages["sample"], stages["decode"])
    longest = max(drawn_s, stages["score"])
    overlap = config.rollout.max_staleness and not 0 < cluster.gpus_per_trainer < 1
    return {
        **stages,
        "train": train,
        "step at best": max(longest, train) if overlap else longest + train,
        "step at worst": sum(stages.values()) + train,
    }


def stage_work(config: RunConfig, times: StageTimes) -> dict[str, float]:
    """Busy seconds of a step by stage, of all workers together."""
    rollout, share = config.rollout, 1 / config.trainer.num_iterations
    new, drawn = share * rollout.images_per_step, share * rollout.completions_per_step
    per_call = min(rollout.prompts_per_chunk, rollout.prompts_per_step) * rollout.group_size
    image = times.sample - times.sample_call / per_call
    return {
        "sample": share * calls_of_step(config)[0] * times.sample_call + drawn * image,
        "decode": new * (times.decode_once + times.decode_per_step * rollout.num_diffusion_steps),
        "score": new * times.score,
        "train": rollout.learnt_per_step * times.train,
    }


def calls_of_step(config: RunConfig) -> tuple[int, int]:
    """Calls of samplers and of decoders in a step, over all trainer ranks: what `rollout/flow.py` makes of its groups.

    A rank divides its groups over all samplers, so that with more ranks and samplers calls become smaller.
    """
    from blip3o_grpo.rollout.requests import groups_per_chunk, groups_per_part

    rollout, ranks = config.rollout, config.cluster.trainers
    groups = max(1, rollout.completions_per_step // rollout.group_size // ranks)
    chunk = groups_per_chunk(config, groups, rollout.group_size)
    part = groups_per_part(config, rollout.group_size * rollout.noises_per_completion)
    whole, rest = divmod(groups, chunk)
    return ranks * (whole + bool(rest)), ranks * (whole * -(-chunk // part) + -(-rest // part))


def shared_gpus(config: RunConfig) -> list[Gpu]:
    """Workers of every GPU, where samplers or decoders have shares of GPUs; empty where each has its own or none.

    Raises:
        ConfigError: the placement cannot be.
    """
    shares = config.cluster.shares
    if not any(0 < shares[kind] < 1 for kind in ("sampler", "decoder")):
        return []
    return [gpu for node in place(config).nodes for gpu in node]


def on_one(gpus: list[Gpu], kind: str) -> int:
    """Most workers of a kind on one of these GPUs, at least 1."""
    return max([1, *(gpu.get(kind, 0) for gpu in gpus)])


def reward_replicas(config: RunConfig) -> int:
    """Of the reward that has the fewest, which the others wait for."""
    return min(num_replicas(config, reward) for reward in config.rewards)


def gpu_seconds(config: RunConfig, times: StageTimes) -> float:
    """Seconds of work of a step on GPUs, all of them together; rewards left out."""
    work = stage_work(config, times)
    kinds = {"sample": "sampler", "decode": "decoder", "train": "trainer"}
    return sum(work[stage] for stage, kind in kinds.items() if config.cluster.shares[kind])
