"""What `blip3o-grpo eval` prints of a reading suite."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.evaluation.tables import short_name
from blip3o_grpo.reading.result import ReadingReport, transformed
from blip3o_grpo.reading.run import find_reading_suite
from blip3o_grpo.terminal import in_words, plain


def reading_table(report: ReadingReport) -> Group:
    """A line per number, a column per policy, and the paired difference where there are two."""
    suite = find_reading_suite(report.suite)
    count = len(next(iter(report.values[0].values())))
    table = Table(title=f"{report.suite}: {count} {suite.set_name}", box=box.SIMPLE_HEAD, show_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("", overflow="fold")
    for policy in report.policies:
        table.add_column(plain(short_name(policy)), justify="right", overflow="fold")
    if len(report.policies) > 1:
        table.add_column("difference", justify="right", no_wrap=True)
    sides = [report.estimates(index) for index in range(len(report.policies))]
    differences = report.differences()
    for measure in suite.measures:
        found = [side.get(measure.name) for side in sides]
        if not any(found):
            continue
        _add(table, measure.title, found, differences.get(measure.name))
        if measure.also:
            title, grows = measure.also
            _add(table, title, [each and transformed(each, grows) for each in found], None)
    table.caption = f"In brackets: 95 % interval over n {suite.set_name}; of the difference, paired."
    return Group(table, Text("\n".join(report.notes)))


def reading_json(report: ReadingReport) -> dict[str, Any]:
    """The same for programs, with every item's part."""
    return report.to_dict(find_reading_suite(report.suite).measures)


def _add(table: Table, title: str, sides: list[Estimate | None], difference: Estimate | None) -> None:
    more = [in_words(difference, "+.4f")] if len(sides) > 1 else []
    table.add_row(plain(title), *(in_words(found, ".4f") for found in sides), *more)
