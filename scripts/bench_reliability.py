"""What do the checks of a run cost? The healthy step of a recipe with them against the same step without, in one run.

    .venv/bin/python scripts/bench_reliability.py [CONFIG] [section.key=value ...] [--pairs 12] [--json PATH]

One training run, in this process, on the real rollout workers; its steps take turns with the checks on and off. What is
switched: SHA-256 of every checkpoint and its manifest, flushing files to the disk (fsync), guards, questions whether a
stop was asked for, the thread in which rollouts are awaited, what workers tell the board about every call, and the
questions to the board while waiting. Rollouts, optimisation and the bytes written are the same on both sides. A
checkpoint is written after every step, so that its cost can be told from the step's; the overhead of the recipe counts
it once every `checkpoint.every_steps`. The noise is the standard error over pairs of neighbouring steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.actor import ActorHandle
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from blip3o_grpo.cluster import ray_cluster, trainer_threads
from blip3o_grpo.configs import DEFAULT_RECIPE, RunConfig, load_run_config
from blip3o_grpo.driver import evaluate_before
from blip3o_grpo.rank import run_training
from blip3o_grpo.rollout import RolloutPipeline
from blip3o_grpo.rollout.faults.calls import Call
from blip3o_grpo.rollout.workers.base import Worker
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.manifest import FILE, FileRecord, Manifest
from blip3o_grpo.validate import check_run

GOAL = 0.03
WARM_UP = 2


@dataclass
class Clock:
    """Wall seconds of each step, without and with its checkpoint, under the name of its setting."""

    steps: dict[str, list[float]] = field(default_factory=lambda: {"on": [], "off": []})
    saves: dict[str, list[float]] = field(default_factory=lambda: {"on": [], "off": []})


def sizes_only(folder: Path, step: int, score: float | None = None) -> Manifest:
    """`write_manifest` without flushing and without hashes."""
    files = {
        path.relative_to(folder).as_posix(): FileRecord(size=path.stat().st_size, sha256="")
        for path in folder.rglob("*")
        if path.is_file()
    }
    manifest = Manifest(step=step, score=score, files=files)
    (folder / FILE).write_text(manifest.model_dump_json())
    return manifest


def hide_board(worker: Worker) -> None:
    """In a worker: announce no call."""
    worker._hidden, worker._board = worker._board, None


def show_board(worker: Worker) -> None:
    """In a worker: undo `hide_board`."""
    worker._board = worker._hidden


def tell(workers: Sequence[ActorHandle], change: Callable[[Worker], None]) -> None:
    """Have every worker make a change to itself."""
    if workers:
        ray.get([worker.__ray_call__.remote(change) for worker in workers])


@contextmanager
def checks_off(workers: Sequence[ActorHandle]) -> Iterator[None]:
    """Inside the block, nothing is checked, hashed, flushed, announced or asked."""

    def first(board: Any, calls: Sequence[Call], prompts: Sequence[str] = ()) -> Call:
        return calls[0]

    def direct(call: Callable[[], Any], interrupted: Callable[[], bool] | None = None) -> Any:
        return call()

    with ExitStack() as stack:
        for target, replacement in {
            "os.fsync": lambda descriptor: None,
            "blip3o_grpo.rollout.faults.calls.first_finished": first,
            "blip3o_grpo.run.folder.write_manifest": sizes_only,
            "blip3o_grpo.training.trainer.interruptible": direct,
            "blip3o_grpo.training.trainer.ImageGRPOTrainer.any_rank": lambda self, value: False,
            "blip3o_grpo.training.guards.Guards.on_pre_optimizer_step": lambda *args, **kwargs: None,
            "blip3o_grpo.training.guards.Guards.on_log": lambda *args, **kwargs: None,
            "blip3o_grpo.training.callbacks.StopAfterBatch.on_step_end": lambda *args, **kwargs: None,
        }.items():
            stack.enter_context(patch(target, replacement))
        tell(workers, hide_board)
        try:
            yield
        finally:
            tell(workers, show_board)


class Turns(TrainerCallback):
    """Switches the checks after every step, in the order on, off, off, on, and keeps the times."""

    def __init__(self, clock: Clock, workers: Sequence[ActorHandle]):
        self.clock, self.workers = clock, workers
        self.off: contextlib.AbstractContextManager | None = None
        self.started = self.stepped = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        off = state.global_step >= WARM_UP and (state.global_step - WARM_UP) % 4 in (1, 2)
        if off and self.off is None:
            self.off = checks_off(self.workers)
            self.off.__enter__()
        elif not off and self.off is not None:
            self.off.__exit__(None, None, None)
            self.off = None
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stepped = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > WARM_UP:
            name = "on" if self.off is None else "off"
            self.clock.steps[name].append(self.stepped - self.started)
            self.clock.saves[name].append(time.perf_counter() - self.stepped)


def measure(config: RunConfig, pairs: int, console: Console) -> Clock:
    """Train and take the times of `pairs` steps of each setting."""
    import torch

    clock = Clock()
    config = config.model_copy(
        update={
            "trainer": config.trainer.model_copy(update={"max_steps": WARM_UP + 2 * pairs}),
            "checkpoint": config.checkpoint.model_copy(update={"every_steps": 1}),
            "evaluation": config.evaluation.model_copy(update={"num_prompts": 8}),  # not what is measured
        }
    )
    run = check_run(config)
    run.folder.prepare(run.config)
    torch.set_num_threads(trainer_threads(run.config))
    with (
        ray_cluster(run.config),
        closing(RolloutPipeline.launch(run.config, run.policy_path)) as pipeline,
    ):
        console.print("workers are up")
        evaluate_before(run, pipeline, Console(quiet=True))
        turns = Turns(clock, [worker for pool in pipeline._pools.values() for worker in pool])
        with patch("blip3o_grpo.rank.MetricsFile", _with_turns(turns)):
            run_training(run.config, run.train_prompts, run.heldout_prompts, pipeline)
    return clock


def _with_turns(turns: Turns) -> type:
    """`MetricsFile` that also keeps the clock: `run_training` has no place for callbacks of others, and needs none."""
    from blip3o_grpo.training.callbacks import MetricsFile

    class Timed(MetricsFile):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            turns.on_step_begin(*args, **kwargs)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turns.on_step_end(*args, **kwargs)

        def on_save(self, *args: Any, **kwargs: Any) -> None:
            turns.on_save(*args, **kwargs)

    return Timed


def summarise(clock: Clock, every_steps: int) -> dict[str, Any]:
    """Seconds of both settings, and the overhead of a step, of a checkpoint and of the recipe as shares of a step."""
    step, save = _difference(clock.steps), _difference(clock.saves)
    base = statistics.mean(clock.steps["off"]) + statistics.mean(clock.saves["off"]) / every_steps
    overhead = (step[0] + save[0] / every_steps) / base
    noise = (step[1] ** 2 + (save[1] / every_steps) ** 2) ** 0.5 / base
    return {
        "pairs": len(clock.steps["on"]),
        "step_seconds": {name: statistics.mean(values) for name, values in clock.steps.items()},
        "checkpoint_seconds": {name: statistics.mean(values) for name, values in clock.saves.items()},
        "step_difference_seconds": step,
        "checkpoint_difference_seconds": save,
        "every_steps": every_steps,
        "overhead": overhead,
        "noise": noise,
        "overhead_with_a_checkpoint_every_step": (step[0] + save[0])
        / (statistics.mean(clock.steps["off"]) + statistics.mean(clock.saves["off"])),
    }


def _difference(values: dict[str, Sequence[float]]) -> tuple[float, float]:
    """Mean of on - off over pairs, and its standard error."""
    pairs = [on - off for on, off in zip(values["on"], values["off"], strict=True)]
    return statistics.mean(pairs), statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default=str(DEFAULT_RECIPE))
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    overrides = options.overrides
    if "=" in options.config:
        overrides, options.config = [options.config, *overrides], str(DEFAULT_RECIPE)
    console = Console()
    with tempfile.TemporaryDirectory(dir=RunFolder("runs").path.parent) as scratch:
        recipe = load_run_config(options.config, overrides)
        config = recipe.model_copy(update={"run_dir": str(Path(scratch) / "run")})
        result = summarise(measure(config, options.pairs, console), recipe.checkpoint.every_steps)
    table = Table("", "checks on", "off", "difference", title=f"{result['pairs']} pairs of steps")
    for name in ("step", "checkpoint"):
        seconds, (mean, error) = result[f"{name}_seconds"], result[f"{name}_difference_seconds"]
        table.add_row(f"{name} (s)", f"{seconds['on']:.3f}", f"{seconds['off']:.3f}", f"{mean:+.4f} ± {error:.4f}")
    console.print(table)
    console.print(
        f"overhead with a checkpoint every {result['every_steps']} steps: {result['overhead']:+.2%} "
        f"± {result['noise']:.2%} "
        f"(goal: under {GOAL:.0%}); with one after every step: {result['overhead_with_a_checkpoint_every_step']:+.2%}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
