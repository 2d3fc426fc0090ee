"""`blip3o-grpo eval` of reading suites: one policy or two, in this process, without Ray, samplers or decoders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.evaluation.benchmark_options import refuse_saved
from blip3o_grpo.evaluation.benchmark_result import Subset, draw_subset, part_of
from blip3o_grpo.evaluation.suites import check_model
from blip3o_grpo.policies import CheckpointError, check_headers
from blip3o_grpo.progress import Bar, activity
from blip3o_grpo.reading.result import Found, ReadingReport, contributions
from blip3o_grpo.rewards.suites import ReadingSuite, find_any_suite
from blip3o_grpo.run.folder import RunFolder, policy_folder
from blip3o_grpo.terminal import show


def run_reading(
    suite: str,
    policy: str,
    *,
    compare: str | None = None,
    data: Path | None = None,
    subset: Subset | None = None,
    console: Console | None = None,
) -> ReadingReport:
    """Measure a policy on a suite that has it read.

    Args:
        suite: a registered `ReadingSuite`.
        policy: `tiny`, a folder in the released layout, or a run folder.
        compare: a second one. Where the suite measures distances from a starting policy, this is the one; default: that
            of the run, if `policy` is one.
        data: file of the suite's items; None: what the project ships.
        subset: so many of them, drawn at random.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError, CheckpointError: before any model loads.
    """
    console = console or Console(quiet=True)
    found = find_reading_suite(suite)
    refuse_saved(suite, (policy,) if compare is None else (policy, compare))
    distances = any(measure.at_start is not None for measure in found.measures)
    if compare is None and distances:
        compare = starting_policy(policy)
    sides = (policy,) if compare is None else (policy, compare)
    folders = [check_headers(policy_folder(side)) for side in sides]
    read = found.read(data)
    for folder in folders:
        found.check(folder, read)
    items = {item: read.items[item] for item in draw_subset(list(read.items), subset, found.set_name)}
    subset = part_of(len(read.items), subset)
    show(console, f"suite {suite}: {len(items)} of {len(read.items)} {found.set_name} of {read.file}")
    with activity(console, "loading libraries"):
        for folder in folders:
            check_model(folder)
    against = folders[1] if distances and len(folders) > 1 else None
    measured = [measure_items(found, folders[0], against, items, console)]
    measured += [measure_items(found, folder, None, items, console) for folder in folders[1:]]
    notes = read.notes
    if distances and compare is None:
        notes = (*notes, "No starting policy is known, so no distance from it; --compare names one.")
    if subset is not None:
        notes = (f"SUBSET: {len(items)} of {len(read.items)}, drawn with seed {subset.seed}.", *notes)
    about = {"file": str(read.file), "digest": read.digest, "items": len(read.items)}
    return ReadingReport(suite, sides, about, subset, tuple(map(contributions, measured)), notes)


def find_reading_suite(name: str) -> ReadingSuite:
    """A registered suite in which policies read.

    Raises:
        ConfigError: unknown, or one of images.
    """
    found = find_any_suite(name)
    if not isinstance(found, ReadingSuite):
        raise ConfigError(
            f"suite {name!r} scores images; measure it with blip3o_grpo.evaluate or blip3o_grpo.benchmark"
        )
    return found


def starting_policy(policy: str) -> str | None:
    """What a run started from; None: this is no run."""
    run = RunFolder(policy)
    return load_run_config(run.config).policy.path if run.config.is_file() else None


def measure_items(
    suite: ReadingSuite, folder: Path, against: Path | None, items: Mapping[str, Any], console: Console
) -> Found:
    """A suite's numbers of one policy, by item.

    Args:
        suite: what is measured.
        folder: of the policy.
        against: folder of a starting policy; None: no distances.
        items: id to item.
        console: where progress goes.

    Raises:
        CheckpointError: a policy computes NaN.
    """
    with Bar(console, f"reading with {folder}", len(items), unit=suite.set_name.removesuffix("s")) as bar:
        found = suite.measure(folder, against, items, bar.see)
    for name, parts in found.items():
        for item, (part, _) in parts.items():
            if not math.isfinite(part):
                raise CheckpointError(f"{folder}: {name} of {item} is {part}; the weights are damaged")
    return found
