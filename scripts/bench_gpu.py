"""What does a step at the released size cost on this GPU? Ours against the same work done as the released code does it.

    python scripts/bench_gpu.py --json bench.json                 # random weights of the released size, on a GPU
    python scripts/bench_gpu.py --calibration h200.json           # and for `blip3o-grpo plan --calibration h200.json`
    python scripts/bench_gpu.py --dry-run                         # a small model on a CPU: does everything run?

The work is that of 16 prompts x 16 images, by stage (`gpu_stages.py`, `bench_logprobs.py`); each way of doing a stage
takes whole batches of it, so images per second compare. Every stage is printed and saved as soon as it is measured.
Memory is what PyTorch allocated on top of the weights; on a CPU only log-probs have one, the resident memory of a
process of their own.

Weights are drawn on the device, nothing is read. Needs torch, transformers, diffusers, accelerate and rich; neither
Ray, vLLM, TRL nor pydantic.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from blip3o_grpo.configs.atomic import StorageError, require_writable, write_atomically  # noqa: E402
from blip3o_grpo.policies import image_tokens, load_config  # noqa: E402
from blip3o_grpo.policies.blip3o_next import released  # noqa: E402
from scripts import bench_logprobs  # noqa: E402
from scripts.bench_logprobs import memory  # noqa: E402
from scripts.gpu_calibration import LEARN, calibration  # noqa: E402
from scripts.gpu_stages import DRY, Settings, Way, decoding, prefill, sampling  # noqa: E402
from scripts.make_full_size import make_in_memory  # noqa: E402

LOGPROBS = "log-probs + backward"
FASTER, SMALLER = 1.5, 0.5
"""Goals: times as fast for decoding and for log-probs with their backward pass; share of the peak for the latter."""


def measure(ways: Sequence[Way], device: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Median seconds of each way, taken in turns after one warm-up each, and its peak on top of what is there."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    peaks: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for way in ways:
            before = memory(device)
            started = time.perf_counter()
            (way.run if repeat or not way.warm_up else way.warm_up)()
            if device == "cuda":
                torch.cuda.synchronize()
                peaks[way.name] = memory(device, peak=True) - before
            if repeat:
                seconds[way.name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = ways[0].images / medians[ways[0].name]
    return {
        way.name: {
            "batch": way.images,
            "seconds": medians[way.name],
            "images_per_second": way.images / medians[way.name],
            "speedup": way.images / medians[way.name] / first,
            "peak_bytes": peaks.get(way.name),
        }
        for way in ways
    }


def log_probs(settings: Settings) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Log-probs with their backward pass: of `lm_head` alone, and as a training step's forward and backward pass."""
    shape = released.qwen_sizes(settings.scale)
    sizes = bench_logprobs.Sizes(
        vocabulary=released.config_values(settings.scale)["vocab_size"],
        image_tokens=released.num_image_tokens(settings.scale),
        hidden=shape["hidden_size"],
        rollouts=settings.rollouts,
        length=bench_logprobs.FULL.length,
    )
    layers = shape["num_hidden_layers"]
    for stage, measured in {LOGPROBS: sizes, LEARN: replace(sizes, layers=layers)}.items():
        report = bench_logprobs.compare(measured, settings.device, settings.repeats)
        baseline = report["results"][bench_logprobs.WAYS[0]]["seconds"]
        yield (
            stage,
            {
                way: {
                    "batch": sizes.rollouts,
                    "seconds": result["seconds"],
                    "images_per_second": sizes.rollouts / result["seconds"],
                    "speedup": baseline / result["seconds"],
                    "peak_bytes": result["peak_bytes"],
                }
                for way, result in report["results"].items()
            },
        )


def goals(stages: dict[str, dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """What was aimed at beside what was measured."""
    decode = stages["decode"]
    best = max(decode[name]["speedup"] for name in decode if name.endswith(f", {settings.steps} steps"))
    theirs, ours = (stages[LOGPROBS][way] for way in bench_logprobs.WAYS)
    share = ours["peak_bytes"] / theirs["peak_bytes"]
    return [
        {
            "name": f"decode, {settings.steps} steps: times as fast",
            "goal": FASTER,
            "measured": best,
            "met": best >= FASTER,
        },
        {
            "name": f"{LOGPROBS}: times as fast",
            "goal": FASTER,
            "measured": ours["speedup"],
            "met": ours["speedup"] >= FASTER,
        },
        {"name": f"{LOGPROBS}: share of the peak", "goal": SMALLER, "measured": share, "met": share < SMALLER},
    ]


def measure_stages(settings: Settings) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Name and rows of each stage, as soon as it is measured."""
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    policy = make_in_memory(settings.scale, 0, settings.device, dtype)
    yield "sample", measure(sampling(policy, settings), settings.device, 1)
    yield "prefill", measure(prefill(policy, settings), settings.device, settings.repeats)
    yield "decode", measure(decoding(policy, settings), settings.device, settings.repeats)
    del policy
    if settings.device == "cuda":
        torch.cuda.empty_cache()
    yield from log_probs(settings)


def policy_shape(settings: Settings) -> dict[str, int]:
    """As `blip3o_grpo.planning.times.policy_shape`, of the size that is measured."""
    with tempfile.TemporaryDirectory() as folder:
        released.write_configs(Path(folder), settings.scale)
        config = load_config(Path(folder))
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "image_tokens": image_tokens(config).num_tokens,
        "image_vocabulary": config.num_image_tokens,
    }


def today() -> str:
    """As `2026-11-29`."""
    return datetime.datetime.now().date().isoformat()


def is_dry(settings: dict[str, Any]) -> bool:
    """Whether the numbers say nothing about the released model on a GPU."""
    return settings["device"] == "cpu" or settings["scale"] < 1


def head_lines(report: dict[str, Any]) -> list[str]:
    """Where this was measured, and the columns."""
    settings = report["settings"]
    lines = [f"{report['device']}, torch {report['torch']}, scale {settings['scale']}"]
    if is_dry(settings):
        lines += ["A dry run: a reduced size or a CPU says nothing about the released model on a GPU."]
    return [*lines, f"{'stage':38} {'way':28} {'batch':>5} {'images/s':>10} {'speed':>7} {'peak GB':>8}"]


def stage_lines(stage: str, ways: dict[str, dict[str, Any]]) -> list[str]:
    """A line per way."""
    lines = []
    for way, row in ways.items():
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}"
        numbers = f"{row['batch']:5} {row['images_per_second']:10.3f} {row['speedup']:6.2f}x {peak:>8}"
        lines += [f"{'' if lines else stage:38} {way:28} {numbers}"]
    return lines


def goal_lines(report: dict[str, Any]) -> list[str]:
    """A line per goal; judged only where it was set for."""
    dry = is_dry(report["settings"])
    return [
        f"goal {goal['goal']}: {goal['name']} {goal['measured']:.2f} "
        f"({'not judged in a dry run' if dry else 'met' if goal['met'] else 'MISSED'})"
        for goal in report["goals"]
    ]


def say(lines: Sequence[str]) -> None:
    """At once: a run may be cut off."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


COUNTS = ("prompts", "group_size", "images_per_decode", "steps", "few_steps", "rollouts", "repeats")


def mistake(settings: Settings) -> str | None:
    """What cannot be measured, in one sentence; None: all can."""
    for name in COUNTS:
        if getattr(settings, name) < 1:
            return f"--{name.replace('_', '-')} {getattr(settings, name)}: give 1 or more"
    if not 0 < settings.scale <= 1:
        return f"--scale {settings.scale:g}: give a share of the released size, above 0 and at most 1"
    if settings.few_steps >= settings.steps:
        return (
            f"--few-steps {settings.few_steps}: give less than --steps {settings.steps}; the two tell what a step costs"
        )
    if settings.prompts * settings.group_size < 2:
        return "--prompts 1 --group-size 1: give 2 images or more; two batches tell what an engine call costs"
    return None


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--calibration", type=Path, help="write the constants for `plan --calibration` here")
    parser.add_argument("--dry-run", action="store_true", help="a small model on the CPU, a minute or less")
    defaults = DRY if "--dry-run" in sys.argv else Settings()
    parser.add_argument("--scale", type=float, default=defaults.scale, help="of the released size, above 0, at most 1")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=defaults.device)
    for name in COUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=defaults.compile)
    options = vars(parser.parse_args())
    file, constants = options.pop("json"), options.pop("calibration")
    del options["dry_run"]
    settings = Settings(**options)
    if wrong := mistake(settings):
        parser.error(wrong)
    try:
        for written in filter(None, (file, constants)):
            require_writable(written)  # now, and not when all is measured
    except StorageError as error:
        parser.error(str(error))
    if options["device"] == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --dry-run checks the script on a CPU at a reduced size")
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "settings": asdict(settings),
        "stages": {},
        "goals": [],
    }

    def save() -> None:
        if file:
            write_atomically(file, json.dumps(report, indent=2) + "\n")

    say(head_lines(report))
    for stage, ways in measure_stages(settings):
        report["stages"][stage] = ways
        say(stage_lines(stage, ways))
        save()
    report["goals"] = goals(report["stages"], settings)
    say(goal_lines(report))
    save()
    if constants:
        command = shlex.join(["python", "scripts/bench_gpu.py", *sys.argv[1:]])
        made = calibration(report, settings, policy_shape(settings), is_dry(report["settings"]), today(), command)
        write_atomically(constants, json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
