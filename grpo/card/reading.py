"""A card's rows of suites in which the policies read: plain texts, questions about pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from blip3o_grpo.card.measures import Table
from blip3o_grpo.card.plan import CardPlan
from blip3o_grpo.reading.result import contributions
from blip3o_grpo.reading.run import measure_items
from blip3o_grpo.rewards.suites import ReadingSuite


def read_tables(plan: CardPlan, console: Console) -> tuple[Table, Table, dict[str, list[str]]]:
    """What the starting policy and the trained one read, by item, and the items by the names of their sets.

    Ids are those of the suite's items behind its name, so that two suites may use the same ones.
    """
    before: Table = {}
    after: Table = {}
    sets = {}
    for name, (suite, data) in plan.reading.items():
        known = {measure.name: measure.at_start for measure in suite.measures if measure.at_start is not None}
        _add(before, name, _measured(suite, plan.start, None, data.items, console))
        _add(after, name, _measured(suite, plan.trained, plan.start, data.items, console))
        sets[suite.set_name] = [_id(name, item) for item in data.items]
        for item in sets[suite.set_name]:
            before.setdefault(item, {}).update(known)
    return before, after, sets


def _measured(
    suite: ReadingSuite, folder: Path, against: Path | None, items: Mapping, console: Console
) -> dict[str, dict[str, float]]:
    return contributions(measure_items(suite, folder, against, items, console))


def _add(table: Table, name: str, found: Mapping[str, Mapping[str, float]]) -> None:
    for measure, values in found.items():
        for item, value in values.items():
            table.setdefault(_id(name, item), {})[measure] = value


def _id(name: str, item: str) -> str:
    return f"{name}:{item}"
