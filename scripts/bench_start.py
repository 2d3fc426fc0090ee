"""What does a run cost until its first step is made? CPU seconds of all its processes, by what they do.

    python scripts/bench_start.py                                  # configs/tiny_ocr.yaml, one step
    python scripts/bench_start.py trainer.beta=0 cluster.samplers=2 # with overrides
    python scripts/bench_start.py --turns 3 --json start.json

The run is a real one, in a folder that is removed afterwards: imports, Ray, models, the held-out evaluation of the
starting policy, and the first optimiser step, whose line in `metrics.jsonl` ends the count. `--program` measures
another checkout by its own command. CPU seconds depend little on what else the machine does; wall seconds do.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from blip3o_grpo.configs.atomic import write_atomically  # noqa: E402
from scripts.process_tree import ProcessTree  # noqa: E402

KINDS = {
    "Sampler": "samplers",
    "Decoder": "decoders",
    "RewardWorker": "rewards",
    "RayTrainWorker": "trainer ranks",
    "TrainController": "Ray Train's controller",
}
OTHERS = "Ray's own processes and small actors"
POLL_S = 0.1
WITHIN_S, END_WITHIN_S = 1800.0, 120.0


def measure(command: Sequence[str], metrics: Path, log: Path) -> dict[str, float]:
    """CPU seconds by kind, `all` and `wall`, from the start of `command` until `metrics` has a line; then it is ended.

    Raises:
        SystemExit: the command ended, or took too long; with the end of its output.
    """
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    tree = ProcessTree(process.pid, KINDS, OTHERS)
    kinds: dict[psutil.Process, str] = {}
    seconds: dict[psutil.Process, float] = {}
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if process.poll() is not None or time.monotonic() - started > WITHIN_S:
                tail = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"error: no step was made within {time.monotonic() - started:.0f} s:\n{tail}")
            note(tree, kinds, seconds)
            time.sleep(POLL_S)
        wall = time.monotonic() - started
        note(tree, kinds, seconds)
    finally:
        process.send_signal(signal.SIGTERM)  # the run ends its cluster itself
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            tree.kill()
            process.wait()
    return {**sums(kinds, seconds), "all": sum(seconds.values()), "wall": wall}


def note(tree: ProcessTree, kinds: dict[psutil.Process, str], seconds: dict[psutil.Process, float]) -> None:
    """Keep what each process has used so far, and what it is: one that has ended cannot be asked any more."""
    found = tree.cpu_seconds()
    seconds.update(found)
    kinds.update(tree.kinds(found))


def sums(kinds: Mapping[psutil.Process, str], seconds: Mapping[psutil.Process, float]) -> dict[str, float]:
    """CPU seconds by kind."""
    found: dict[str, float] = defaultdict(float)
    for process, spent in seconds.items():
        found[kinds.get(process, OTHERS)] += spent
    return dict(found)


def main() -> None:
    """Print a table of medians, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="section.key=value changes to the recipe")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/tiny_ocr.yaml")
    parser.add_argument("--program", default=f"{shlex.quote(sys.executable)} -m blip3o_grpo.cli", help="words of it")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    turns = []
    for _ in range(args.turns):
        with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
            run = Path(folder) / "run"
            settings = ["trainer.max_steps=1", *args.overrides, f"run_dir={run}"]
            command = [*shlex.split(args.program), "train", str(args.recipe.resolve()), *settings]
            turns.append(measure(command, run / "metrics.jsonl", Path(folder) / "log.txt"))
    names = sorted({name for turn in turns for name in turn}, key=lambda name: -max(t.get(name, 0) for t in turns))
    sys.stdout.write("| CPU seconds until the first step is made | median | range |\n|---|---|---|\n")
    for name in names:
        values = [turn.get(name, 0.0) for turn in turns]
        shown = f"{statistics.median(values):.1f} | {min(values):.1f} to {max(values):.1f}"
        sys.stdout.write(f"| {'wall seconds' if name == 'wall' else name} | {shown} |\n")
    if args.json:
        write_atomically(args.json, json.dumps(turns, indent=2) + "\n")


if __name__ == "__main__":
    main()
