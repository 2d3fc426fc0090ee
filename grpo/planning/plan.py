"""`blip3o-grpo plan`: the placement, the memory of each GPU and the predicted times, or the reason why it cannot be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console
from rich.table import Table

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.configs.head import FlowGRPOSection
from blip3o_grpo.configs.needs_tokens import require_tokens
from blip3o_grpo.planning import cards
from blip3o_grpo.planning.sizes import ENGINE_SHARE, TRANSFER_BUFFER, Footprint
from blip3o_grpo.planning.times import StageTimes, check_measured, device_of, measured_times, predict
from blip3o_grpo.planning.tune import Proposal, proposals, show_proposals, with_cluster
from blip3o_grpo.policies import resolve_policy_path
from blip3o_grpo.policies.blip3o_next.config import read_config
from blip3o_grpo.rollout.placement.gpus import Gpu, Placement, place
from blip3o_grpo.rollout.weights.path import WeightPath, weight_path
from blip3o_grpo.terminal import show
from blip3o_grpo.training.parallel import check_parallel

GB = 1e9
FLOAT = 4
PUBLISHED = "BLIP3o-NEXT"
"""How the names of the published checkpoints start; all have the same sizes."""
BUILT_IN = "{name} is not on this machine: built-in sizes of the released 3B model"


def check_layout(config: RunConfig) -> Placement:
    """Placement of a run as far as its configuration tells; imports nothing large.

    Raises:
        ConfigError: more GPUs than there are, sharding or a weight sync that cannot be.
    """
    placement = place(config)
    weight_path(config)
    check_parallel(config)
    return placement


def check_placement(
    config: RunConfig, policy_path: Path, known: dict[int, dict[str, Footprint]] | None = None
) -> Placement:
    """Placement of a run that fits.

    Args:
        config: of the run.
        policy_path: folder of its policy.
        known: footprints by number of trainer ranks, filled here: for many placements of one recipe.

    Raises:
        ConfigError: as `check_layout`, or more memory than `cluster.gpu_memory_gb`.
    """
    placement = check_layout(config)
    memory, ranks = config.cluster.gpu_memory_gb, config.cluster.trainers
    if not memory or not any(placement.nodes):
        return placement
    if config.policy.type == "blip3o":
        raise ConfigError("cluster.gpu_memory_gb: what a BLIP3-o needs of it is not known yet; leave it out")
    from blip3o_grpo.planning.footprint import footprints

    known = {} if known is None else known
    if ranks not in known:
        known[ranks] = footprints(config, policy_path)
    sizes, path = known[ranks], weight_path(config)
    for gpu in (gpu for node in placement.nodes for gpu in node):
        for phase, needed in memory_of_gpu(config, gpu, sizes, path).items():
            if sum(needed.values()) > memory * GB:
                parts = ", ".join(f"{kind} {size / GB:.1f}" for kind, size in needed.items())
                raise ConfigError(
                    f"a GPU of cluster.gpu_memory_gb={memory:g} cannot hold {describe(gpu)} ({phase}): {parts} GB; "
                    "lower trainer.micro_batch_size or rollout.prompts_per_chunk, shard or use LoRA, or use more GPUs"
                )
    return placement


def describe(gpu: Gpu) -> str:
    """Workers of one GPU in words."""
    return " + ".join(kind if count == 1 else f"{count} {kind}s" for kind, count in gpu.items())


def memory_of_gpu(
    config: RunConfig, gpu: Gpu, sizes: dict[str, Footprint], path: WeightPath
) -> dict[str, dict[str, float]]:
    """Bytes on one GPU by phase and kind of worker, rewards left out: nobody knows theirs. `path`: `weight_path`'s.

    A sampler takes its share of the GPU. One that gets its weights by IPC sleeps during training, and the trainer gives
    back what only training needs before the sampler wakes up; all others keep what they once took.

    Raises:
        ConfigError: a sampler's share is too little for it.
    """
    needed = _while_all_work(config, gpu, sizes)
    if path != "ipc" or not {"sampler", "trainer"} <= gpu.keys():
        return {"rollout": needed, "training": needed}
    resting = {"trainer": sizes["trainer"].lasting + TRANSFER_BUFFER}
    return {"rollout": needed | resting, "training": needed | {"sampler": 0}}


def _while_all_work(config: RunConfig, gpu: Gpu, sizes: dict[str, Footprint]) -> dict[str, float]:
    needed = {}
    for kind, workers in gpu.items():
        if kind not in sizes:
            continue
        size = workers * sizes[kind].total
        if kind == "sampler" and config.cluster.gpu_memory_gb:
            share = config.cluster.gpus_per_sampler
            taken = workers * ENGINE_SHARE * share * config.cluster.gpu_memory_gb * GB
            if size > taken:
                raise ConfigError(
                    f"{describe({kind: workers})} need at least {size / GB:.1f} GB of GPU memory; with "
                    f"cluster.gpus_per_sampler={share:g} vLLM may take {taken / GB:.1f} GB; lower "
                    "rollout.prompts_per_chunk or give a larger share"
                )
            size = taken
        needed[kind] = size
    return needed


class Plan(TypedDict):
    """Where a run's workers go and what they need, as plain values."""

    policy: str
    """As the recipe names it, or in words that the sizes are built in."""
    nodes: list[list[Gpu]]
    """Node to GPU to kind of worker to how many of it share this GPU."""
    gpus: int
    on_cpu: dict[str, int]
    """Kind of worker to how many."""
    weight_sync: str
    """How new weights reach the samplers."""
    memory_bytes: dict[str, dict[str, float]]
    """Kind of worker to what one holds, `total` among it."""
    not_counted: dict[str, str]
    images: dict[str, int]
    """Of a step: `prompts`, `completions` of each, `noises` of each of these, all `images`; bytes of the `latents` that
    the head learns from, in the trainers' main memory; and `run`, images of all steps."""
    gpu_memory_bytes: list[list[dict[str, dict[str, float]]]]
    """Node to GPU to phase (`rollout`, `training`) to kind of worker to bytes."""
    seconds: dict[str, float] | None
    """Stage to seconds of a step; None: nothing like it was measured."""
    source: str | None
    """Where the times were measured, or what they were computed from."""
    computed: list[str]
    """Stages whose times nobody measured."""
    proposals: list[Proposal] | None
    """With `tune`: placements that fit, the fastest first; the rest of the plan is of that one."""


def make_plan(
    config: RunConfig,
    measured: Path | None = None,
    card: str | None = None,
    tune: int | None = None,
    calibration: Path | None = None,
) -> Plan:
    """Everything `show_plan` prints, as plain values.

    Args:
        config: of the run.
        measured: run folder to take times from.
        card: name in `cards.CARDS` to compute times for, instead; its memory is what a GPU has where the recipe does
            not say (`cluster.gpu_memory_gb`).
        tune: propose placements on so many GPUs.
        calibration: file of times that were measured on this card (`scripts/bench_gpu.py --calibration`).

    Raises:
        ConfigError, CheckpointError: the run cannot be placed, or does not fit.
    """
    require_tokens(config, "plan")
    if measured is not None and (card or calibration):
        other = "--card" if card else "--calibration"
        raise ConfigError(f"--measured and {other} both give times; give one of them")
    if card is not None:
        cards.card(card)
    if calibration is not None:
        from blip3o_grpo.planning.calibration import calibrated_card

        card = calibrated_card(calibration, card)
    if card is not None and config.cluster.gpu_memory_gb is None:
        config = with_cluster(config, {"gpu_memory_gb": cards.card(card).memory_gb})
    if tune is None:
        check_layout(config)
        if card is not None:
            check_on_gpus(config, card)
    if measured is not None:
        check_measured(measured)
    if built_in := names_released(config.policy.path):
        from blip3o_grpo.policies.blip3o_next.released import write_configs

        with tempfile.TemporaryDirectory() as folder:
            write_configs(Path(folder), 1)
            plan = _plan_of(config, Path(folder), measured, card, tune, calibration)
    else:
        plan = _plan_of(config, resolve_policy_path(config.policy.path), measured, card, tune, calibration)
    return {"policy": BUILT_IN.format(name=config.policy.path) if built_in else config.policy.path, **plan}


def check_on_gpus(config: RunConfig, card: str) -> None:
    """Refuse times of a card for workers that the recipe keeps on CPUs.

    Raises:
        ConfigError: naming the keys.
    """
    if device_of(config) != "gpu":
        shares = config.cluster.shares
        without = [f"cluster.gpus_per_{kind}=0" for kind in ("trainer", "sampler", "decoder") if not shares[kind]]
        raise ConfigError(
            f"--card {card}: this recipe keeps workers on CPUs ({', '.join(without)}), where times of a GPU do not "
            "hold; give each 1, or --tune N, which finds a placement on N GPUs"
        )


def check_of_gpus(times: StageTimes) -> None:
    """Refuse to place workers on GPUs by times that CPUs took.

    Raises:
        ConfigError: with the origin of the times.
    """
    if times.device != "gpu":
        raise ConfigError(
            f"--tune places workers on GPUs, and these times are not of GPUs ({times.source}); give --card NAME, "
            "--calibration FILE, or --measured RUN of a run on GPUs"
        )


def names_released(name: str) -> bool:
    """Whether a policy that is not on this machine has the name of a published checkpoint, whose sizes are known."""
    return not Path(name).is_dir() and Path(name).name.startswith(PUBLISHED)


def _plan_of(
    config: RunConfig,
    policy_path: Path,
    measured: Path | None,
    card: str | None,
    tune: int | None,
    calibration: Path | None,
) -> dict[str, Any]:
    from blip3o_grpo.planning.footprint import footprints

    read_config(policy_path)
    if calibration is not None:
        from blip3o_grpo.planning.calibration import calibrated_times

        times = calibrated_times(config, policy_path, calibration)
    elif card is not None:
        from blip3o_grpo.planning.costs import computed_times

        times = computed_times(config, policy_path, card)
    else:
        times = measured_times(config, policy_path, measured)
    found = None
    if tune is not None:
        if times is None:
            raise ConfigError("--tune needs times: give --card NAME, or --measured RUN")
        if card is None:
            check_of_gpus(times)
        known: dict[int, dict[str, Footprint]] = {}
        found = proposals(config, times, tune, lambda tried: check_placement(tried, policy_path, known))
        config = with_cluster(config, found[0]["cluster"])
    placement = check_placement(config, policy_path)
    sizes, path = footprints(config, policy_path), weight_path(config)
    return {
        "nodes": [list(node) for node in placement.nodes],
        "gpus": sum(len(node) for node in placement.nodes),
        "on_cpu": placement.on_cpu,
        "weight_sync": path,
        "memory_bytes": {kind: size.items | {"total": size.total} for kind, size in sizes.items()},
        "not_counted": {kind: size.not_counted for kind, size in sizes.items()},
        "images": images_of(config, policy_path),
        "gpu_memory_bytes": [[memory_of_gpu(config, gpu, sizes, path) for gpu in node] for node in placement.nodes],
        "seconds": predict(config, times) if times else None,
        "source": times.source if times else None,
        "computed": list(times.computed) if times else [],
        "proposals": found,
    }


def images_of(config: RunConfig, policy_path: Path) -> dict[str, int]:
    """What `Plan` tells of a run's images: what a step costs, whatever learns from it."""
    from blip3o_grpo.policies import BLIP3oNext

    rollout, method = config.rollout, config.head.method
    latents = 0
    if "head" in config.learn:
        head = BLIP3oNext.shapes(policy_path).transformer.config
        kept = method.window + 2 if isinstance(method, FlowGRPOSection) else 1  # as `denoising.denoise` keeps them
        latents = rollout.images_per_step * kept * head.in_channels * head.sample_size**2 * FLOAT
    return {
        "prompts": rollout.completions_per_step // rollout.group_size,
        "completions": rollout.group_size,
        "noises": rollout.noises_per_completion,
        "images": rollout.images_per_step,
        "latents": latents,
        "run": rollout.images_per_step * config.trainer.max_steps // config.trainer.num_iterations,
    }


def origin(name: str, plan: Plan) -> str:
    """Of a row of the predicted times: a stage, or a whole step, which follows from all of them."""
    stages = [stage for stage in plan["seconds"] if not stage.startswith("step")]
    computed = [stage for stage in ([name] if name in stages else stages) if stage in plan["computed"]]
    if not computed:
        return "measured"
    return "computed" if name in stages or len(computed) == len(stages) else f"measured; {', '.join(computed)} computed"


def show_plan(plan: Plan, console: Console) -> None:
    """Print a plan as tables."""
    show(console, f"policy: {plan['policy']}")
    title = f"placement: {plan['gpus']} GPUs, memory in GB"
    rows = Table("node", "GPU", "workers", "in rollouts", "in training", title=title)
    for number, (node, sizes) in enumerate(zip(plan["nodes"], plan["gpu_memory_bytes"], strict=True)):
        for index, (gpu, phases) in enumerate(zip(node, sizes, strict=True)):
            shown = [f"{sum(size.values()) / GB:.1f}" if size else "unknown" for size in phases.values()]
            rows.add_row(str(number), str(index), describe(gpu), *shown)
    if plan["gpus"]:
        console.print(rows)
    console.print("on CPUs: " + (", ".join(f"{n} {kind}(s)" for kind, n in plan["on_cpu"].items()) or "nothing"))
    console.print(f"weights to samplers: {plan['weight_sync']}")
    images = plan["images"]
    latents = f"; its latents are {images['latents'] / 1e6:.1f} MB" if images["latents"] else ""
    show(
        console,
        f"a batch: {images['prompts']} prompts x {images['completions']} completions x {images['noises']} noises = "
        f"{images['images']:,} images{latents}; the run: {images['run']:,} images",
    )
    memory = Table("worker", "holds", "GB", title="memory of one worker, from shapes")
    for kind, items in plan["memory_bytes"].items():
        for name, size in items.items():
            memory.add_row(kind, name, f"{size / GB:.3f}")
        memory.add_row(kind, f"[dim]not counted: {plan['not_counted'][kind]}[/dim]", "", end_section=True)
    console.print(memory)
    if plan["seconds"] is None:
        console.print(
            "times: none measured for this policy and what it learns on these devices, so none are predicted; "
            "give --measured RUN, the folder of a run of a few steps, or --card NAME to compute them"
        )
        return
    times = Table("stage", "seconds per step", "from", title="predicted times")
    for name, seconds in plan["seconds"].items():
        times.add_row(name, f"{seconds:.1f}", origin(name, plan))
    console.print(times)
    show(console, f"times: {plan['source']}")
    if plan["proposals"]:
        show_proposals(plan["proposals"], console)
