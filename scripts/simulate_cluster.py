"""How long would a step take there? A discrete-event simulation of steps, held against runs that were measured.

    python scripts/simulate_cluster.py compare RUN [RUN ...]       # constants of the first run, predictions for all
    python scripts/simulate_cluster.py scale blip3o_next_ocr --card h200 --gpus 8,64,1024 [section.key=value ...]

`compare` reads `metrics.jsonl` of finished runs on this kind of machine: what a stage costs is fitted to the busy
seconds of the first run, and the other runs, with other numbers of workers, are predicted from that alone. `scale`
takes computed or calibrated times (`grpo/planning`), simulates the placements that `plan --tune` proposes for each
number of GPUs, and prints of the fastest what a step takes: with separate pools, with separate pools one step
off-policy, and with every GPU in every role in turn. Nothing but `compare`'s runs is measured: the links between GPUs
and nodes are assumed (`cluster_layout.Links`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from blip3o_grpo.api import load_recipe  # noqa: E402
from blip3o_grpo.configs import ConfigError, RunConfig  # noqa: E402
from blip3o_grpo.configs.atomic import StorageError, write_atomically  # noqa: E402
from blip3o_grpo.configs.needs_tokens import require_tokens  # noqa: E402
from blip3o_grpo.planning.calibration import calibrated_card  # noqa: E402
from blip3o_grpo.planning.cards import card  # noqa: E402
from blip3o_grpo.planning.plan import names_released  # noqa: E402
from blip3o_grpo.planning.sizes import Footprint  # noqa: E402
from blip3o_grpo.policies import CheckpointError, resolve_policy_path  # noqa: E402
from blip3o_grpo.policies.blip3o_next.released import write_configs  # noqa: E402
from scripts.cluster_compare import check_simulated, compare, comparison_lines  # noqa: E402
from scripts.cluster_layout import (  # noqa: E402
    Links,
)
from scripts.cluster_scale import Setting, grown, scale, scale_lines  # noqa: E402

DEFAULT_CARD = "h200"
LEAST_GPUS = 3
"""One for each role."""
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


@contextmanager
def policy_folder(name: str) -> Iterator[Path]:
    """The policy's own folder, or one with the configs of the released sizes."""
    if not names_released(name):
        yield resolve_policy_path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_configs(Path(folder), 1)
        yield Path(folder)


def numbers_of_gpus(text: str) -> list[int]:
    """Of `8,64`.

    Raises:
        ConfigError: not numbers, or too few GPUs for three roles.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < LEAST_GPUS:
        raise ConfigError(f"--gpus {text}: give numbers of GPUs with commas, each {LEAST_GPUS} or more, as 8,64")
    return numbers


def card_of(args: argparse.Namespace) -> str:
    """Name of the card.

    Raises:
        ConfigError: not known, or the calibration is of another one.
    """
    if args.calibration:
        return calibrated_card(args.calibration, args.card)
    card(args.card or DEFAULT_CARD)
    return args.card or DEFAULT_CARD


def check_counts(args: argparse.Namespace) -> None:
    """Refuse counts below 1.

    Raises:
        ConfigError: naming the option.
    """
    for option in ("cores", "base", "images_per_score"):
        value = getattr(args, option, None)
        if value is not None and value < 1:
            raise ConfigError(f"--{option.replace('_', '-')} {value}: give 1 or more")


def setting_of(args: argparse.Namespace) -> tuple[RunConfig, str]:
    """The recipe and the card.

    Raises:
        ConfigError: of a policy without tokens, with what is not simulated, or the card is not known.
    """
    config = load_recipe(args.recipe, *args.overrides)
    require_tokens(config, "simulate_cluster.py")
    check_simulated(config)
    return config, card_of(args)


def main() -> None:
    """Print Markdown, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    against = commands.add_parser("compare", help="hold the simulation against finished runs")
    against.add_argument("runs", nargs="+", type=Path, help="run folders; what a stage costs is fitted to the first")
    against.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="of the machine of these runs")
    larger = commands.add_parser("scale", help="predict a recipe on other numbers of GPUs")
    larger.add_argument("recipe")
    larger.add_argument("overrides", nargs="*", help="section.key=value changes to the recipe")
    larger.add_argument("--card", help=f"a100, h100, h200; default: the calibration's, else {DEFAULT_CARD}")
    larger.add_argument("--calibration", type=Path, help="file of scripts/bench_gpu.py; else times are computed")
    larger.add_argument("--gpus", default=",".join(map(str, GPUS)), help="numbers of GPUs, with commas")
    larger.add_argument("--batch", choices=("fixed", "grown"), default="fixed", help="grown: in proportion to the GPUs")
    larger.add_argument("--base", type=int, default=8, help="with --batch grown: GPUs that the recipe's batch is for")
    larger.add_argument("--fit", action="store_true", help="try smaller chunks and parts than the recipe's too")
    larger.add_argument("--decoders-join", action="store_true", help="as if decoders got weights as samplers do")
    larger.add_argument("--images-per-score", type=int, help="as if rewards took so many images a call")
    for each in (against, larger):
        each.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    try:
        check_counts(args)
        if args.command == "compare":
            found = compare(args.runs, args.cores)
            lines = comparison_lines(found)
        else:
            sizes, rows = numbers_of_gpus(args.gpus), []
            config, name = setting_of(args)
            with policy_folder(config.policy.path) as folder:
                setting = Setting(
                    config,
                    folder,
                    name,
                    args.calibration,
                    Links(),
                    args.fit,
                    args.decoders_join,
                    args.images_per_score,
                )
                known: dict[int, dict[str, Footprint]] = {}
                for num_gpus in sizes:
                    if args.batch == "grown":
                        setting, known = replace(setting, config=grown(config, num_gpus, args.base)), {}
                    rows += scale(setting, num_gpus, known)
            found, lines = [row.values() for row in rows], scale_lines(rows)
        sys.stdout.write("\n".join(lines) + "\n")
        if args.json:
            write_atomically(args.json, json.dumps(found, indent=2) + "\n")
    except (ConfigError, CheckpointError, StorageError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
