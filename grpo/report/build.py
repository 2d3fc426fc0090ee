"""Puts a run's report together: what its folder holds so far, as one HTML file, and its numbers as JSON beside it.

Reads files only; no model, no Ray, no network. The page depends on nothing outside itself, and the same folder gives
the same page. What an unfinished run does not have yet is named in a sentence, and so is every file that is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError, RewardSection, WarningsSection
from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.configs.regular_files import is_regular
from blip3o_grpo.configs.schema import EvaluationSection
from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.gold import find_falls
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.report.curves import Curves
from blip3o_grpo.report.page import (
    HERE,
    checkout_line,
    command_line,
    describe_starts,
    estimate_numbers,
    write_page,
)
from blip3o_grpo.report.pictures import MAX_IMAGES, MAX_PROMPTS, Album, grid_pictures, heldout_pictures
from blip3o_grpo.report.reading import RunContents, read_run
from blip3o_grpo.report.rollouts import Records, show, step_pictures
from blip3o_grpo.run.files import read_object
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import HackingWarning, find_warnings, heldout_warnings
from blip3o_grpo.run.rollback import ROLLED_BACK

ROLLOUT_PICTURES = 48
"""About as many a page shows of training."""


@dataclass(frozen=True)
class Row:
    """One score before and after, and the change, paired by prompt; None where it was not measured."""

    name: str
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None
    weight: float | None = None


def write_report(
    run_dir: str | Path, out: str | Path | None = None, warn: Callable[[str], None] = lambda _: None
) -> Path:
    """Write the report of a run folder, finished or not, and return its path; its numbers go to a JSON file beside it.

    Args:
        run_dir: the run folder.
        out: file to write; default `report.html` in the run folder.
        warn: called with one sentence per damaged file; the page says the same.

    Raises:
        ConfigError: `run_dir` is no run folder, its `config.yaml` is unreadable, or `out` cannot be what it names.
    """
    folder = RunFolder(run_dir)
    if not is_regular(folder.config):
        raise ConfigError(
            f"{folder.path} is not a run folder: it has no config.yaml (give the `run_dir` of a training run)"
        )
    run = read_run(folder)
    values = gather(run)
    target = folder.path / "report.html" if out is None else Path(out)
    written = write_page("report.html.jinja", HERE, values, as_numbers(run, values), target)
    for problem in run.problems.sentences:
        warn(problem)
    return written


def gather(run: RunContents) -> dict[str, Any]:
    """Everything the page shows, by the names that the template uses."""
    before, later = run.pictures("before"), run.pictures(run.later)
    records = Records(run.folder, run.weights, run.problems.add)
    shown = sum(min(len(line["images"]), MAX_IMAGES) for line in [*before[:MAX_PROMPTS], *later[:MAX_PROMPTS]])
    album = Album(shown + ROLLOUT_PICTURES)
    pairs = heldout_pictures(album, run.folder, before, run.later or "after", later)
    curves = Curves(run)
    path = run.folder.path
    return {
        "name": path.name,
        "state": describe_state(run),
        "problems": run.problems.sentences,
        "facts": facts(run),
        "later": run.later,
        "warnings": hacking_warnings(run),
        "heldout": heldout_rows(run),
        "num_heldout": run.before and (run.before.num_prompts, run.before.images_per_prompt),
        "tag_tables": tag_tables(run.before, run.after),
        "charts": curves.main(),
        "more_charts": curves.others(),
        "resumed": run.resumed,
        "pairs": pairs,
        "grids": [] if pairs.prompts else grid_pictures(album, run.folder, run.later),
        "best": show(album, records.best()),
        "worst": show(album, records.worst()),
        "steps": step_pictures(album, records),
        "num_recorded": records.num_steps,
        "num_read": len(records.steps),
        "commands": [
            line
            for line in (
                checkout_line(run.starts),
                command_line("train", run.folder.config, f"run_dir={path.with_name(path.name + '-again')}"),
            )
            if line
        ],
        "starts": describe_starts(run.starts),
        "versions": run.starts[-1]["versions"] if run.starts else (run.summary or {}).get("versions", {}),
        "config": run.text,
    }


def as_numbers(run: RunContents, values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the page for programs; every mean and change with its interval and number of prompts."""
    return {
        "run": str(run.folder.path),
        "state": values["state"][0],
        "steps": run.metrics[-1]["step"] if run.metrics else 0,
        "course": course(run),
        "max_steps": run.config["trainer"]["max_steps"],
        "evaluation": run.later,
        "heldout": _as_numbers(values["heldout"]),
        "tags": {reward: _as_numbers(rows) for reward, rows in values["tag_tables"].items()},
        "warnings": [f"step {warning.step}: {warning.text}" for warning in values["warnings"]],
        "damaged": list(values["problems"]),
        "commands": values["commands"],
        "environment": run.starts,
        "versions": values["versions"],
    }


def _as_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        row.name: {key: estimate_numbers(getattr(row, key)) for key in ("before", "after", "change")} for row in rows
    }


def describe_state(run: RunContents) -> tuple[str, str]:
    """One word, and a sentence about it."""
    if run.training:
        return "training", "GRPO run, still training: this page shows what its folder holds so far."
    if run.summary is not None:
        return "finished", "GRPO run, finished."
    if run.folder.summary.exists():
        return "finished", "GRPO run, finished, but its summary is damaged."
    return (
        "unfinished",
        "GRPO run, not finished and not running: this page shows what its folder holds so far. "
        "The command that started it resumes it.",
    )


def facts(run: RunContents) -> list[tuple[str, str]]:
    """(label, value) pairs of the page's head."""
    done, planned = run.metrics[-1]["step"] if run.metrics else 0, run.config["trainer"]["max_steps"]
    rollout = run.config["rollout"]
    rows = [
        ("steps", f"{done} of {planned}"),
        ("images per step", _images(rollout)),
        ("what learns", " and ".join(run.config.get("learn", ["tokens"]))),
    ]
    if (updates := run.config["trainer"].get("num_iterations", 1)) > 1:
        rows.append(("steps on the same images", str(updates)))
    if run.summary:
        rows.append(("time", duration(run.summary["seconds"])))
        rows.append(("peak memory", f"{run.summary['peak_memory_gb']:.1f} GB"))
    elif run.metrics:
        rows.append(("time in steps", duration(sum(line.get("time/step") or 0 for line in run.metrics))))
    if run.starts:
        rows.append(("started", describe_starts(run.starts[:1])[0]["started"]))
    if back := run.folder.rollback.exists() and run.problems.reading(
        lambda: read_object(run.folder.rollback, ROLLED_BACK), "it is left out"
    ):
        rows.append(("result", f"of step {back['step']}: rolled back after step {back['after']}"))
    if run.resumed:
        rows.append(("resumed after step", ", ".join(map(str, run.resumed))))
    return [*rows, ("policy", str(run.config["policy"].get("path"))), ("seed", str(run.config["seed"]))]


def _images(rollout: Mapping[str, Any]) -> str:
    """Of a step; runs of older versions have one noise for each completion."""
    noises = rollout.get("noises_per_completion", 1)
    return f"{rollout['prompts_per_step']} prompts × {rollout['group_size']}" + (f" × {noises}" if noises > 1 else "")


def duration(seconds: float) -> str:
    """`45 s`, `11 min 51 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def course(run: RunContents) -> list[dict[str, Any]]:
    """Of every held-out evaluation what had been spent until then, and the means."""
    rows = []
    for evaluation in sorted(run.evaluations.values(), key=lambda evaluation: evaluation.step):
        images, minutes = run.spent_until(evaluation.step)
        rows.append({"step": evaluation.step, "images": images, "minutes": minutes, "means": dict(evaluation.means)})
    return rows


def heldout_rows(run: RunContents) -> list[Row]:
    """One row per reward that was measured, in the order of the configuration."""
    rows = make_rows({name: name for name in run.weights}, run.before, run.after, run.weights)
    return [row for row in rows if row.before or row.after]


def make_rows(
    titles: Mapping[str, str],
    before: Evaluation | None,
    after: Evaluation | None,
    weights: Mapping[str, float] | None = None,
) -> list[Row]:
    """Rows of the scores with these names (`Evaluation.estimates`), by their titles."""
    first, second = (evaluation.estimates() if evaluation else {} for evaluation in (before, after))
    changes = paired_changes(before, after) if before and after else {}
    rows = []
    for name, title in titles.items():
        rows.append(Row(title, first.get(name), second.get(name), changes.get(name), (weights or {}).get(name)))
    return rows


def tag_tables(before: Evaluation | None, after: Evaluation | None) -> dict[str, list[Row]]:
    """Name of a reward with tags to its rows per tag and the overall score, where an evaluation has such results."""
    results = [evaluation.tags if evaluation else {} for evaluation in (before, after)]
    tables = {}
    for reward in dict.fromkeys([*results[0], *results[1]]):
        tags = dict.fromkeys(tag for result in results for tag in result.get(reward, {}))
        titles = {f"{reward}/{tag}": tag for tag in tags} | {f"{reward}/overall": "overall, mean of the tags"}
        tables[reward] = make_rows(titles, before, after)
    return tables


def hacking_warnings(run: RunContents) -> list[HackingWarning]:
    """What the run's own limits and its gold warn of, in its steps and between its evaluations."""
    limits = WarningsSection.model_validate(run.config.get("warnings", {}))
    rewards = [RewardSection.model_validate(reward) for reward in run.config["rewards"]]
    found = find_warnings(limits, rewards, run.metrics)
    if run.before and run.after:
        found += heldout_warnings(
            limits, rewards, run.before.means, paired_changes(run.before, run.after), run.after.step
        )
    gold = GuardsSection.model_validate(run.config.get("guards", {})).gold
    every = EvaluationSection.model_validate(run.config.get("evaluation", {})).every_steps
    falls = find_falls(list(run.evaluations.values()), rewards, gold if every else (), every)
    return [*found, *(HackingWarning(fall.step, f"heldout/{fall.reward}", f"{fall} (guards.gold)") for fall in falls)]
