"""Puts a run's report together: what its folder holds so far, as one HTML file.

Reads files only; no model, no Ray, no network. The page depends on nothing outside itself, and the same folder gives
the same page. What an unfinished run does not have yet is named in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import ConfigError, RewardSection, WarningsSection, read_yaml
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.configs.mistakes import first_mistake
from blip3o_grpo.configs.regular_files import is_regular, read_text
from blip3o_grpo.evaluation.changes import paired_changes
from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.report import charts, pictures
from blip3o_grpo.run.files import SUMMARY, read_object
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.hacking import HackingWarning, find_warnings, heldout_warnings
from blip3o_grpo.run.image_signals import IMAGE_SIGNALS
from blip3o_grpo.run.metrics import read_metrics

STAGES = {"sample": "sampling", "decode": "decoding", "score": "scoring", "train": "training", "step": "whole step"}


class ShownTrainer(TypedDict):
    """Of the section `trainer`, what the page shows."""

    max_steps: int
    beta: FiniteFloat
    mismatch_bound: FiniteFloat


class ShownRollout(TypedDict):
    """Of the section `rollout`, what the page shows."""

    prompts_per_step: int
    group_size: int


class ShownConfig(TypedDict):
    """What the page needs of a configuration, whatever other keys its version had."""

    seed: int
    policy: dict[str, Any]
    trainer: ShownTrainer
    rollout: ShownRollout
    rewards: list[dict[str, Any]]


SHOWN = TypeAdapter(ShownConfig)
EVALUATIONS = re.compile(r"before|after|step-\d+", re.ASCII)
"""Names of evaluations; what else lies beside them is not a run's."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and one sentence about it."""

    title: str
    note: str
    svg: Markup | None


@dataclass(frozen=True)
class Row:
    """One score before and after, and the change, paired by prompt; None where it was not measured."""

    name: str
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None
    weight: float | None = None


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run folder, finished or not, and return its path.

    Args:
        run_dir: the run folder.
        out: file to write; default `report.html` in the run folder.

    Raises:
        ConfigError: `run_dir` is no run folder, or its `config.yaml` is unreadable.
    """
    run = RunFolder(run_dir)
    if not is_regular(run.config):
        raise ConfigError(
            f"{run.path} is not a run folder: it has no config.yaml (give the `run_dir` of a training run)"
        )
    target = run.path / "report.html" if out is None else Path(out)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_atomically(target, environment.get_template("report.html.jinja").render(gather(run)))
    return target


def gather(run: RunFolder) -> dict[str, Any]:
    """Everything the page shows, by the names that the template uses."""
    text, config = read_config(run)
    metrics = read_metrics(run.metrics)
    summary = read_object(run.summary, SUMMARY) if is_regular(run.summary) else None
    evaluations = read_evaluations(run)
    before, later = evaluations.get("before"), newest(evaluations)
    return {
        "name": run.path.name,
        "facts": facts(config, metrics, summary),
        "finished": summary is not None,
        "later": later,
        "warnings": hacking_warnings(config, metrics, before, evaluations.get(later)),
        "heldout": heldout_rows(config, before, evaluations.get(later)),
        "num_heldout": before and (before.num_prompts, before.images_per_prompt),
        "tag_tables": tag_tables(before, evaluations.get(later)),
        "charts": make_charts(config, metrics, evaluations) if metrics or evaluations else [],
        "pairs": pictures.heldout_pictures(run, later),
        "grids": pictures.grid_pictures(run, later),
        "steps": pictures.rollout_pictures(run),
        "versions": (summary or {}).get("versions", {}),
        "config": text,
    }


def read_config(run: RunFolder) -> tuple[str, dict[str, Any]]:
    """The run's resolved configuration as text and as plain values; a run of an older version is as good as any."""
    values = read_yaml(run.config)
    try:
        SHOWN.validate_python(values, strict=True)
        WarningsSection.model_validate(values.get("warnings", {}))
        rewards = [RewardSection.model_validate(reward).model_dump() for reward in values["rewards"]]
    except ValidationError as error:
        raise ConfigError(f"{run.config} is not the configuration of a training run ({first_mistake(error)})") from None
    return read_text(run.config), {**values, "rewards": rewards}


def read_evaluations(run: RunFolder) -> dict[str, Evaluation]:
    """Held-out results by name (`before`, `step-N`, `after`), in order of their steps."""
    files = [file for file in sorted(run.evaluations.glob("*.json")) if EVALUATIONS.fullmatch(file.stem)]
    found = {file.stem: Evaluation.load(file) for file in files}
    return dict(sorted(found.items(), key=lambda item: (item[0] != "before", item[1].step)))


def newest(evaluations: Mapping[str, Any]) -> str | None:
    """Name of the latest evaluation that is not the one before training; `after` comes last."""
    names = [name for name in evaluations if name != "before"]
    return "after" if "after" in names else (names[-1] if names else None)


def facts(
    config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """(label, value) pairs of the page's head."""
    done, planned = metrics[-1]["step"] if metrics else 0, config["trainer"]["max_steps"]
    rollout = config["rollout"]
    rows = [
        ("steps", f"{done} of {planned}"),
        ("images per step", f"{rollout['prompts_per_step']} prompts × {rollout['group_size']}"),
    ]
    if summary:
        rows.append(("time", duration(summary["seconds"])))
        rows.append(("peak memory", f"{summary['peak_memory_gb']:.1f} GB"))
    elif metrics:
        rows.append(("time in steps", duration(sum(line.get("time/step") or 0 for line in metrics))))
    return [*rows, ("policy", str(config["policy"].get("path"))), ("seed", str(config["seed"]))]


def duration(seconds: float) -> str:
    """`45 s`, `11 min 51 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def heldout_rows(config: Mapping[str, Any], before: Evaluation | None, after: Evaluation | None) -> list[Row]:
    """One row per reward that was measured, in the order of the configuration."""
    weights = {reward["name"]: reward["weight"] for reward in config["rewards"]}
    rows = make_rows({name: name for name in weights}, before, after, weights)
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


def hacking_warnings(
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    before: Evaluation | None,
    later: Evaluation | None,
) -> list[HackingWarning]:
    """What the run's own limits warn of, in its steps and between its evaluations."""
    limits = WarningsSection.model_validate(config.get("warnings", {}))
    rewards = [RewardSection.model_validate(reward) for reward in config["rewards"]]
    found = find_warnings(limits, rewards, metrics)
    if before and later:
        found += heldout_warnings(limits, rewards, before.means, paired_changes(before, later), later.step)
    return found


def make_charts(
    config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Evaluation]
) -> list[Chart]:
    """Reward curves, KL, mismatch and seconds over the steps."""
    steps = [line["step"] for line in metrics]
    smooth = len(steps) // 12 if len(steps) >= 36 else 1
    blurred = f" Bold: mean of {smooth} steps." if smooth > 1 else ""

    def line(name: str, label: str, width: int = 1) -> charts.Line:
        return charts.Line(label, steps, [entry.get(name) for entry in metrics], width)

    made = []
    rewards = config["rewards"]
    for index, reward in enumerate(rewards):
        name, measured = reward["name"], [e for e in evaluations.values() if reward["name"] in e.means]
        found = [e.estimates()[name] for e in measured]
        points = charts.Points(
            "held-out, 95 % interval",
            [e.step for e in measured],
            [e.mean for e in found],
            [e.mean if e.low is None else e.low for e in found],  # too few prompts: a dot without a bar
            [e.mean if e.high is None else e.high for e in found],
        )
        svg = charts.draw(f"reward-{index}", [line(f"reward/{name}", "training", smooth)], points)
        made.append(Chart(f"Reward: {name}", f"Mean over a step's images; weight {reward['weight']:g}.{blurred}", svg))
    if len(rewards) > 1:
        svg = charts.draw("reward-sum", [line("reward/mean", "training", smooth)])
        made.append(Chart("Weighted sum of the rewards", f"What the advantages are made of.{blurred}", svg))
    kl = [line("kl/reference", "KL", smooth)]
    note = f"Nats per token; held back with beta = {config['trainer']['beta']:g}.{blurred}"
    made.append(Chart("KL to the starting policy", note, charts.draw("kl", kl)))
    columns = [[entry.get(name) for entry in metrics] for name in ("kl/reference", "reward/mean")]
    path = [charts.running_mean(np.array(column, dtype=float), smooth) for column in columns] if metrics else [(), ()]
    svg = charts.draw("budget", [charts.Line("reward", *path)], xlabel="KL, nats per token")
    note = "Weighted sum of the rewards. A curve that goes on to the right without rising pays for nothing."
    made.append(Chart("Reward against KL", note, svg))
    signals = [line(name, name.removeprefix("image/"), smooth) for name in IMAGE_SIGNALS]
    note = f"Statistics of the training images, each in [0, 1].{blurred}"
    if svg := charts.draw("images", signals):  # runs of an older version have none
        made.append(Chart("What the images look like", note, svg))
    mismatch = [line("mismatch/mean_abs", "mean"), line("mismatch/max_abs", "largest")]
    bound = config["trainer"]["mismatch_bound"]
    svg = charts.draw("mismatch", mismatch, log=True, bound=bound)
    note = f"|log-probability of the sampler − of the trainer| per token, nats. A mean above {bound:g} stops the run."
    made.append(Chart("Mismatch of sampler and trainer", note, svg))
    stages = [line(f"time/{stage}", label) for stage, label in STAGES.items()]
    note = "Stages overlap, and parallel workers' seconds add up: they are busy time. The whole step is wall time."
    made.append(Chart("Seconds per stage", note, charts.draw("seconds", stages)))
    return made
