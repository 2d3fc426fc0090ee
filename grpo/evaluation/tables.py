"""What `blip3o-grpo eval` prints: scores with their intervals, two policies side by side, and tables per tag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.evaluation.suites import SuiteResult, correct_prompts
from blip3o_grpo.progress import SIGNS
from blip3o_grpo.rewards import TagTable, declared
from blip3o_grpo.rewards.suites import find_suite
from blip3o_grpo.terminal import in_words, plain

if TYPE_CHECKING:
    from blip3o_grpo.result import TrainingResult

LONGEST_NAME = 28
"""Characters of a policy's name that a table shows."""

UNKNOWN = "–"


def suite_tables(result: SuiteResult) -> Group:
    """Everything to print about a result."""
    tables = [] if result.difference is None else [comparison_table(result)]
    if _tag_table(result) is not None:
        tables.append(tag_table(result))
    elif result.difference is None:
        tables.append(scores_table(result))
    note = result.scope_note()
    return Group(*tables, *([Text(note)] if note else []))


def scores_table(result: SuiteResult) -> Table:
    """One policy's scores."""
    name_column = Column("score", overflow="fold")
    table = Table(name_column, "mean", "95 % interval", "n", title=_title(result), title_justify="left")
    for name, found in result.evaluations[0].estimates().items():
        table.add_row(plain(name), f"{found.mean:.3f}", found.interval(), _count(found))
    return table


def heldout_table(result: TrainingResult) -> Table:
    """What training changed: only what is shown has a colour."""
    title = f"{result.steps} steps, held-out prompts"
    table = Table(Column("reward", overflow="fold"), "before", "after", "change", title=title)
    first, second = result.before.estimates(), result.after.estimates()
    for name in result.before.means:
        if name not in result.after.means:
            table.add_row(plain(name), in_words(first[name]), *[UNKNOWN] * 2)
            continue
        change = result.changes[name]
        word, colour = SIGNS[change.direction]
        shown = Text(f"{change.mean:+.3f} {word}", colour).append(f"\n({change.interval_and_n('+.3f')})", "default")
        table.add_row(plain(name), in_words(first[name]), in_words(second[name]), shown)
    table.caption = "In brackets: 95 % interval over n prompts; of the change, paired by prompt."
    return table


def comparison_table(result: SuiteResult) -> Table:
    """Both policies' scores, and the difference with its paired interval."""
    table = Table(title=f"{_title(result)}, the same for both policies", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    table.title_justify = table.caption_justify = "left"
    table.add_column("score", no_wrap=True)
    for policy in result.policies:
        table.add_column(plain(short_name(policy)), justify="right", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    first, second = (evaluation.estimates() for evaluation in result.evaluations)
    for name, found in result.difference.estimates().items():
        values = (f"{first[name].mean:.3f}", f"{second[name].mean:.3f}")
        difference = Text(f"{found.mean:+.3f}{'' if found.direction else ' ='}", "" if found.direction else "dim")
        table.add_row(plain(_score_title(name, result)), *values, difference, found.interval("+.3f"), _count(found))
    table.caption = (
        "Difference: first minus second policy, n prompts. Interval: 95 %, paired by prompt.\n"
        "=: no difference shown, the interval holds 0 or there is none.\n"
    )
    return table


def tag_table(result: SuiteResult) -> Group:
    """The usual table of a reward with tags: a row per policy, and below them what others have published."""
    name, declared_tags, suite = result.reward.name, _tag_table(result), find_suite(result.suite)
    tags = list(
        dict.fromkeys(
            [*declared_tags.titles, *(tag for evaluation in result.evaluations for tag in evaluation.tags[name])]
        )
    )
    table = Table(title=_title(result), title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Model", overflow="fold")
    for tag in (*tags, "overall"):  # one word a line, so that all columns fit into 80 characters
        table.add_column(
            Text("\n").join(map(plain, declared_tags.title(tag).split(" "))), justify="right", no_wrap=True
        )
    for policy, evaluation in zip(result.policies, result.evaluations, strict=True):
        measured = evaluation.estimates()
        cells = [_cell(measured.get(f"{name}/{tag}")) for tag in (*tags, "overall")]
        table.add_row(plain((short_name(policy), "bold")), *cells)
    if suite.published:
        table.add_section()
        table.add_row(Text("Published, for reference:", style="italic"))
    for row in suite.published:
        cells = [short(row.tags[tag]) if tag in row.tags else UNKNOWN for tag in tags]
        table.add_row(plain(f"{row.model}{' †' if row.rewritten else ''}"), *cells, short(row.overall), style="dim")
    return Group(table, Text("\n" + "\n".join(_notes(result))))


def short(value: float) -> str:
    """`.58`, `1.00`, `-.05`: as published tables write scores."""
    return f"{value:.2f}".replace("0.", ".", 1)


def short_name(policy: str) -> str:
    """A policy's name as given, or the end of it."""
    if len(policy) <= LONGEST_NAME:
        return policy
    return f"…{policy.rstrip('/')[1 - LONGEST_NAME :]}"


def _score_title(name: str, result: SuiteResult) -> str:
    """`NAME/two_object` as `Two objects`; other scores by their name."""
    table = _tag_table(result)
    if table is None:
        return name
    tag = name.removeprefix(f"{result.reward.name}/")
    return "all images" if tag == name else table.title(tag)


def _tag_table(result: SuiteResult) -> TagTable | None:
    return declared(result.reward.target, result.reward.folder).tags


def _cell(score: Estimate | None) -> Text:
    """Mean, below it the interval, below that the number of prompts."""
    if score is None:
        return Text(UNKNOWN)
    spread = UNKNOWN if score.low is None or score.high is None else f"{short(score.low)}–{short(score.high)}"
    return Text.assemble((short(score.mean), "bold"), "\n", (f"{spread}\nn={_count(score)}", "dim"))


def _count(found: Estimate) -> str:
    return UNKNOWN if found.n is None else str(found.n)


def _title(result: SuiteResult) -> str:
    first = result.evaluations[0]
    return f"{result.suite}: {first.num_prompts} prompts, {first.images_per_prompt} images each"


def _notes(result: SuiteResult) -> list[str]:
    """What the table's numbers are, and what they are not."""
    suite, name = find_suite(result.suite), result.reward.name
    notes = ["Below a score: 95 % interval over its n prompts.", *suite.notes(result.reward.options)]
    for policy, evaluation in zip(result.policies, result.evaluations, strict=True):
        if suite.counts_correct:
            images, prompts = evaluation.estimates()[name], correct_prompts(evaluation, name)
            notes.append(
                f"{short_name(policy)}: {images.mean:.1%} of images correct ({images.interval_and_n('.1%')}), "
                f"{prompts.mean:.1%} of prompts with a correct one ({prompts.interval_and_n('.1%')})."
            )
    return [*notes, *suite.published_notes]
