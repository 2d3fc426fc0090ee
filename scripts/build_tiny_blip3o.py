"""Build a tiny BLIP3-o on the tiny world's shapes, stage by stage, and measure it on held-out scenes.

    python scripts/build_tiny_blip3o.py --work runs/tiny_blip3o             # the policy; resumable
    python scripts/build_tiny_blip3o.py --work runs/tiny_blip3o --compare   # and the arms it is compared with
    python scripts/build_tiny_blip3o.py --work /tmp/smoke --smoke           # seconds, untrained quality

Stages, each skipped when its output is in the work folder: features of drawn pictures (by the shipped policy's DC-AE),
`ar` (the AR part learns to repeat captions), then one folder for each arm: `flow_sequential` (flow matching, the AR
part frozen), `flow_joint` (the AR part learns too), `mse_sequential` (squared error instead); then `rough`, the first
arm trained on with blurred pictures, the policy that is kept.
The last one measures all that is there into `measures.json`. An arm that was stopped goes on from its last
hundred steps. Seconds of every stage are in `seconds.json`, of an interrupted one those of its last part.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blip3o_grpo.configs.atomic import staged_folder, write_atomically
from blip3o_grpo.policies import BLIP3oNext
from blip3o_grpo.policies.blip3o.policy import BLIP3o
from blip3o_grpo.policies.tiny_world import world
from blip3o_grpo.policies.tiny_world.blip3o import random_blip3o
from scripts.tiny_build.blip3o import ARMS, ROUGH, Arm, blurred, draw_shapes, encode, train_arm, train_rough, train_text
from scripts.tiny_build.blip3o_measures import measure_arm, measure_ceiling, report
from scripts.tiny_build.patches import pixels

console = Console()


@dataclass(frozen=True)
class Size:
    """How much work a build does."""

    pictures: int
    text_steps: int
    steps: int
    batch_size: int
    rate: float
    rough_pictures: int
    rough_steps: int
    scenes: int
    images_per_prompt: int


FULL = Size(8000, 400, 1500, 32, 1.5e-3, 3000, 150, 144, 2)
SMOKE = Size(64, 3, 3, 4, 1e-3, 8, 2, 6, 1)


class Clock:
    """Seconds since it was made, on the wall and of all processors: on a shared machine they differ."""

    def __init__(self):
        self.wall, self.processor = time.time(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """`wall` and `processor`."""
        wall, processor = time.time() - self.wall, time.process_time() - self.processor
        return {"wall": round(wall, 1), "processor": round(processor, 1)}


class Build:
    """A work folder and its stages.

    Args:
        work: the folder.
        size: how much work.
    """

    def __init__(self, work: Path, size: Size):
        self.work, self.size = work, size
        self.scenes = draw_shapes(size.pictures, seed=1)
        work.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, start: Path | None, change: Callable[[BLIP3o], None]) -> Path:
        """The folder of a stage's policy: that of `start` after `change`, unless it is there."""
        folder = self.work / name
        if not folder.is_dir():
            started = Clock()
            policy = BLIP3o.from_pretrained(start or random_blip3o(self.work / "start", corpus=self._corpus()))
            change(policy)
            with staged_folder(folder) as staged:
                policy.save_pretrained(staged)
            self._note(name, started)
        return folder

    def text(self) -> Path:
        """The AR part that reads captions, beside the shipped policy's autoencoder."""

        def change(policy: BLIP3o) -> None:
            policy.decoder.vae.load_state_dict(BLIP3oNext.from_pretrained("tiny", parts=("head",)).vae.state_dict())
            train_text(policy, self.scenes, self.size.text_steps, self.size.batch_size, console)

        return self.stage("ar", None, change)

    def features(self, start: Path) -> torch.Tensor:
        """Of all pictures, `[N, C, h, w]`."""
        file = self.work / "features.safetensors"
        if not file.is_file():
            started = Clock()
            save_file({"features": encode(BLIP3o.from_pretrained(start), pixels(self.scenes))}, file)
            self._note("features", started)
        return load_file(file)["features"]

    def arm(self, arm: Arm, start: Path) -> Path:
        """An arm's policy."""
        size, features = self.size, self.features(start)
        options = {"steps": size.steps, "batch_size": size.batch_size, "rate": size.rate, "console": console}
        checkpoint = self.work / f"{arm.name}.pt"

        def change(policy: BLIP3o) -> None:
            torch.manual_seed(0)
            train_arm(policy, arm, self.scenes, features, checkpoint=checkpoint, **options)

        return self.stage(arm.name, start, change)

    def rough(self, start: Path) -> Path:
        """The policy that is kept."""
        size, scenes = self.size, self.scenes[: self.size.rough_pictures]

        def change(policy: BLIP3o) -> None:
            train_rough(policy, scenes, encode(policy, blurred(scenes)), size.rough_steps, size.batch_size, console)

        return self.stage(ROUGH, start, change)

    def measure(self, output: Path) -> None:
        """Measure the arms that are there, and the policy in `output`."""
        started, size = Clock(), self.size
        tags = [tag for tag in world.TAGS for _ in range(size.scenes // len(world.TAGS))]
        scenes = _of_tags(tags, seed=8)
        values = {}
        for name, loss, folder in [
            *((arm.name, arm.loss, self.work / arm.name) for arm in ARMS),
            (ROUGH, "flow", output),
        ]:
            if folder.is_dir():
                policy = BLIP3o.from_pretrained(folder)
                grid = self.work / f"{name}.png"
                values[name] = measure_arm(policy, loss, scenes, size.images_per_prompt, grid)
        found = report(values, measure_ceiling(policy, scenes), ARMS[0].name, tags, console)
        self._note("measure", started)
        record = {"size": asdict(size), "seconds": self._seconds(), "measures": found}
        write_atomically(output / "measures.json", json.dumps(record, indent=2) + "\n")

    def _corpus(self) -> list[str]:
        return sorted({scene.prompt for scene in self.scenes})

    def _seconds(self) -> dict[str, dict[str, float]]:
        file = self.work / "seconds.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _note(self, stage: str, clock: Clock) -> None:
        told = self._seconds() | {stage: clock.seconds()}
        write_atomically(self.work / "seconds.json", json.dumps(told, indent=2) + "\n")
        console.print(f"{stage}: {clock.seconds()}")


def _of_tags(tags: list[str], seed: int) -> list[world.Scene]:
    """A held-out scene for each tag."""
    scenes = iter(draw_shapes(200 * len(tags), seed, heldout=True))
    by_tag: dict[str, list[world.Scene]] = {tag: [] for tag in tags}
    for scene in scenes:
        by_tag[scene.metadata["tag"]].append(scene)
    return [by_tag[tag].pop(0) for tag in tags]


def build(work: Path, output: Path, size: Size, compare: bool) -> None:
    """All stages."""
    run = Build(work, size)
    start = run.text()
    for arm in ARMS if compare else ARMS[:1]:
        run.arm(arm, start)
    BLIP3o.from_pretrained(run.rough(work / ARMS[0].name)).save_pretrained(output, dtype=torch.bfloat16)
    run.measure(output)
    console.print(f"policy: {output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny_blip3o"), help="build folder; a second call resumes"
    )
    parser.add_argument("--output", type=Path, help="where the finished checkpoint goes (default: WORK/tiny_blip3o)")
    parser.add_argument("--compare", action="store_true", help="also train and measure the other arms")
    parser.add_argument("--smoke", action="store_true", help="seconds' work of no quality")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    output = arguments.output or arguments.work / "tiny_blip3o"
    build(arguments.work, output, SMOKE if arguments.smoke else FULL, arguments.compare)


if __name__ == "__main__":
    main()
