"""Kills processes of a training run at random moments and compares what comes out with a run left in peace.

Two runs of the same small recipe, one after the other. In the second, samplers, decoders, reward workers, the board and
trainer ranks get SIGKILL, as often as `--kills` says and at moments that `--seed` draws; if the command itself ends, it
is given again, as a user or a scheduler would. Then metrics, evaluations and recorded rollouts must be the same.

Only descendants of the command that this script started are ever killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, also where the project is not installed

from scripts.compare_runs import Comparison, compare_runs, read_lines  # noqa: E402

TITLES = {
    "sampler": "ray::Sampler",
    "decoder": "ray::Decoder",
    "reward": "ray::RewardWorker",
    "board": "ray::Board",
    "trainer": "ray::RayTrainWorker",
}
"""What Ray calls the processes of each kind."""
SMALL = (
    "rollout.prompts_per_step=4",
    "rollout.group_size=4",
    "rollout.prompts_per_chunk=1",
    "rollout.images_per_decode=4",
    "rollout.num_diffusion_steps=2",
    "rollout.record_images=all",
    "evaluation.num_prompts=8",
    "evaluation.images_per_prompt=2",
    "evaluation.grid_prompts=2",
    "evaluation.every_steps=10",
    "checkpoint.every_steps=2",
    "cluster.address=local",
    "faults.backoff_s=0.2",
    "report_to=[]",
)
VICTIM_PATIENCE_S = 600
"""How long a kind of process may be away (it was killed just before) when one of it is to be killed."""


@dataclass(frozen=True)
class Kill:
    """A kill that is to happen while step `step` (from 0) is made, `delay_s` after it began or the last kill."""

    step: int
    delay_s: float
    kind: str


@dataclass
class Attack:
    """What was done to a run."""

    kills: list[dict] = field(default_factory=list)
    missed: list[dict] = field(default_factory=list)
    restarts: int = 0
    """How often the command ended early and was given again."""
    seconds: float = 0.0


def plan_kills(num_kills: int, num_steps: int, step_seconds: float, seed: int) -> list[Kill]:
    """Random moments in order; every kind gets its share. None in the last steps, which might be over too early."""
    rng = random.Random(seed)
    kinds = [list(TITLES)[i % len(TITLES)] for i in range(num_kills)]
    rng.shuffle(kinds)
    last = max(1, num_steps - max(2, num_steps // 10))
    steps = sorted(rng.randrange(last) for _ in kinds)
    return [Kill(step, rng.uniform(0, step_seconds), kind) for step, kind in zip(steps, kinds, strict=True)]


def steps_done(run: Path) -> int:
    """Steps that `metrics.jsonl` has."""
    return len(read_lines(run / "metrics.jsonl"))


def kill_one(driver: int, kind: str, rng: random.Random) -> int | None:
    """SIGKILL one process of a kind that descends from the run's command; its id, or None if there is none now."""
    with suppress(psutil.NoSuchProcess):  # command or victim has just ended by itself
        found = [child for child in psutil.Process(driver).children(recursive=True) if _is(child, kind)]
        if found:
            victim = rng.choice(found)
            victim.kill()
            return victim.pid
    return None


def _is(process: psutil.Process, kind: str) -> bool:
    try:
        return (process.cmdline() or [""])[0].split(".")[0] == TITLES[kind]
    except psutil.Error:  # it has just ended
        return False


def start(config: Path, run: Path, overrides: list[str]) -> subprocess.Popen:
    """Give the command; it starts a Ray cluster of its own."""
    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from blip3o_grpo.cli import app; app()", "train", str(config), f"run_dir={run}"]
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search, "RAY_ADDRESS": "local"}
    log = (run.parent / f"{run.name}.log").open("a")
    return subprocess.Popen([*command, *overrides], stdout=log, stderr=subprocess.STDOUT, env=environment)


def finish(process: subprocess.Popen, run: Path) -> None:
    """Wait for a run that nothing happens to.

    Raises:
        typer.Exit: it failed.
    """
    if process.wait():
        Console(stderr=True).print(
            f"[bold red]error:[/bold red] the undisturbed run failed, see {run.parent}/{run.name}.log"
        )
        raise typer.Exit(2)


def attack(config: Path, run: Path, overrides: list[str], kills: list[Kill], console: Console) -> Attack:
    """Train while killing; returns when the run is complete, or when its command fails though nothing was killed."""
    done, began = Attack(), time.monotonic()
    pending, process = list(kills), start(config, run, overrides)
    rng = random.Random(len(kills))
    moment, restarts_left = time.monotonic(), len(kills) + 1
    while True:
        if process.poll() is not None:
            if (run / "summary.json").is_file() or not restarts_left:
                break
            done.restarts, restarts_left = done.restarts + 1, restarts_left - 1
            console.print(f"the command ended with exit code {process.returncode}; given again", highlight=False)
            process = start(config, run, overrides)
        if pending and steps_done(run) >= pending[0].step and training(process, run):
            kill = pending[0]
            if time.monotonic() - moment < kill.delay_s:
                time.sleep(0.05)
                continue
            victim = kill_one(process.pid, kill.kind, rng)
            if victim is not None:
                done.kills.append({**asdict(kill), "at_step": steps_done(run), "pid": victim})
                console.print(f"step {steps_done(run)}: killed {kill.kind} {victim}", highlight=False)
            elif time.monotonic() - moment < kill.delay_s + VICTIM_PATIENCE_S:
                time.sleep(0.2)
                continue
            else:
                done.missed.append(asdict(kill))
            pending.pop(0)
            moment = time.monotonic()
        else:
            moment = time.monotonic()
            time.sleep(0.2)
    done.missed += [asdict(kill) for kill in pending]
    done.seconds = time.monotonic() - began
    return done


def training(process: subprocess.Popen, run: Path) -> bool:
    """Whether the evaluation before training is over and the trainer has been started (it may be dead just now)."""
    return (run / "evaluations" / "before.json").is_file() and process.poll() is None


def kill_table(done: Attack) -> Table:
    """Kills by kind."""
    table = Table(title="kills")
    for column in ("kind", "killed", "not possible"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    killed, missed = (Counter(kill["kind"] for kill in kills) for kills in (done.kills, done.missed))
    for kind in TITLES:
        table.add_row(kind, str(killed[kind]), str(missed[kind]))
    table.add_row("all", str(killed.total()), str(missed.total()), style="bold")
    return table


def comparison_table(comparisons: list[Comparison]) -> Table:
    """What was compared, and what differs."""
    table = Table(title="against the undisturbed run")
    for column in ("what", "compared", "differences", "largest", "first difference"):
        table.add_column(column, justify="left" if column in ("what", "first difference") else "right")
    for found in comparisons:
        style = "red" if found.differences else "green"
        first = found.differences[0] if found.differences else ""
        table.add_row(
            found.what, str(found.compared), str(len(found.differences)), f"{found.largest:.1e}", first, style=style
        )
    return table


def main(
    kills: Annotated[int, typer.Option(help="How many processes to kill.", min=0)] = 30,
    seed: Annotated[int, typer.Option(help="Of the moments and victims.")] = 0,
    steps: Annotated[
        int, typer.Option(help="Training steps of both runs; 0: 4/3 of the kills, at least 4.", min=0)
    ] = 0,
    config: Annotated[Path, typer.Option(help="Recipe.")] = ROOT / "configs" / "tiny_ocr.yaml",
    out: Annotated[
        Path, typer.Option(help="Folder of the two runs; what it holds of an earlier test is deleted.")
    ] = Path("runs/chaos"),
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the result there.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value of the recipe.")] = None,
) -> None:
    """Exit code 0: the killed run is the same as the undisturbed one; 1: it differs, or not all kills happened."""
    console = Console()
    num_steps = steps or max(4, kills * 4 // 3)
    settings = [*SMALL, f"trainer.max_steps={num_steps}", *(overrides or [])]
    peace, storm = (out.resolve() / name for name in ("undisturbed", "killed"))
    for run in (peace, storm):
        shutil.rmtree(run, ignore_errors=True)
        run.with_name(f"{run.name}.log").unlink(missing_ok=True)
    console.print(f"undisturbed run of {num_steps} steps: {peace}")
    began = time.monotonic()
    finish(start(config, peace, settings), peace)
    peace_seconds = time.monotonic() - began
    step_seconds = sorted(line["time/step"] for line in read_lines(peace / "metrics.jsonl"))[num_steps // 2]
    console.print(f"the same with {kills} kills: {storm}")
    done = attack(config, storm, settings, plan_kills(kills, num_steps, step_seconds, seed), console)
    comparisons = compare_runs(peace, storm)
    console.print(kill_table(done), comparison_table(comparisons))
    times = f"{peace_seconds:.0f} s undisturbed, {done.seconds:.0f} s with kills"
    console.print(f"{times}; command given again {done.restarts} times", highlight=False)
    same = not any(found.differences for found in comparisons)
    if json_path:
        result = {"kills": kills, "seed": seed, "steps": num_steps, "same": same, "undisturbed_seconds": peace_seconds}
        result |= {"attack": asdict(done), "comparisons": [asdict(found) for found in comparisons]}
        json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(0 if same and not done.missed else 1)


if __name__ == "__main__":
    typer.run(main)
