"""What `blip3o-grpo eval` prints of a benchmark: the published table's layout, differences, and who judged."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from blip3o_grpo.evaluation.benchmark_result import BenchmarkReport, BenchmarkResult, scope_note
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.evaluation.tables import UNKNOWN, short, short_name
from blip3o_grpo.rewards.suites import find_suite
from blip3o_grpo.terminal import plain


def benchmark_tables(report: BenchmarkReport) -> Group:
    """Everything to print about a report."""
    tables = [] if report.difference is None else [_comparison(report), Text()]
    return Group(*tables, _table(report), Text("\n" + "\n".join(_notes(report))))


def _table(report: BenchmarkReport) -> Table:
    """A row per policy, and below them what others have published."""
    first = report.results[0]
    suite = find_suite(first.suite)
    titles = {column.name: column.title for result in report.results for column in result.columns}
    names = [*(name for name in titles if name != "overall"), "overall"]
    table = Table(title=_title(first), title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Model", overflow="fold")
    for name in names:
        table.add_column(plain(titles.get(name, "Overall")), justify="right", no_wrap=True)
    for result in report.results:
        estimates = result.estimates()
        cells = [_cell(estimates.get(name), suite.benchmark.percent) for name in names]
        table.add_row(plain((short_name(result.policy), "bold")), *cells)
    if suite.published:
        table.add_section()
        table.add_row(Text("Published, for reference:", style="italic"))
    for row in suite.published:
        values = [row.tags.get(name) for name in names[:-1]]
        shown = [UNKNOWN if value is None else _published(value, suite.benchmark.percent) for value in values]
        overall = _published(row.overall, suite.benchmark.percent)
        table.add_row(plain(f"{row.model}{' †' if row.rewritten else ''}"), *shown, overall, style="dim")
    return table


def _comparison(report: BenchmarkReport) -> Table:
    first, second = report.results
    percent = find_suite(first.suite).benchmark.percent
    table = Table(title=f"{_title(first)}, the same for both", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    table.title_justify = table.caption_justify = "left"
    table.add_column("score", no_wrap=True)
    for result in report.results:
        table.add_column(plain(short_name(result.policy)), justify="right", overflow="fold")
    for name in ("difference", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    titles = {column.name: column.title for column in first.columns}
    estimates = [result.estimates() for result in report.results]
    form = "+.2f" if percent else "+.3f"
    for name, found in report.difference.items():
        scaled = _scaled(found, percent)
        values = (f"{_scaled(each[name], percent).mean:{form[1:]}}" for each in estimates)
        difference = Text(f"{scaled.mean:{form}}{'' if found.direction else ' ='}", "" if found.direction else "dim")
        table.add_row(plain(titles[name]), *values, difference, scaled.interval(form), str(found.n))
    table.caption = (
        "Difference: first minus second, n prompts. Interval: 95 %, paired by prompt.\n"
        "=: no difference shown, the interval holds 0 or there is none."
    )
    return table


def _title(result: BenchmarkResult) -> str:
    unit = ", in percent" if find_suite(result.suite).benchmark.percent else ""
    return f"{result.suite}: {len(result.prompts)} prompts, {result.images_per_prompt} images each{unit}"


def _cell(found: Estimate | None, percent: bool) -> Text:
    """Mean, below it the interval, below that the number of prompts."""
    if found is None:
        return Text(UNKNOWN)
    scaled = _scaled(found, percent)
    ends = [scaled.low, scaled.high]
    shown = UNKNOWN if None in ends else "–".join(_published(end, percent) for end in ends)
    return Text.assemble((_published(scaled.mean, percent), "bold"), "\n", (f"{shown}\nn={found.n}", "dim"))


def _scaled(found: Estimate, percent: bool) -> Estimate:
    factor = 100.0 if percent else 1.0
    ends = (None if end is None else factor * end for end in (found.low, found.high))
    return Estimate(factor * found.mean, *ends, found.n)


def _published(value: float, percent: bool) -> str:
    return f"{value:.2f}" if percent else short(value)


def _notes(report: BenchmarkReport) -> list[str]:
    """What the table's numbers are, and what they are not."""
    first = report.results[0]
    suite = find_suite(first.suite)
    notes = ["Below a score: 95 % interval over its n prompts."]
    notes += [note for note in (scope_note(first),) if note]
    if first.images_per_prompt != suite.benchmark.images_per_prompt:
        notes.append(
            f"{first.images_per_prompt} images a prompt; the benchmark has {suite.benchmark.images_per_prompt}."
        )
    if "overall" not in {column.name for column in first.columns}:
        notes.append("No overall score: it needs prompts of every category.")
    extra = f", extra {first.judge['extra']}" if "extra" in first.judge else ""
    notes.append(f"Judge: {first.judge['model']}, version {first.judge['version']}{extra}.")
    notes += [f"Asked for {short_name(result.policy)}: {result.usage.words()}." for result in report.results]
    return [*notes, *first.notes, *suite.published_notes]
