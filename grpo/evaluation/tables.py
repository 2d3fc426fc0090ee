"""What `blip3o-grpo eval` prints: scores with their intervals, two policies side by side, and GenEval's usual table."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from blip3o_grpo.evaluation.heldout import Evaluation
from blip3o_grpo.evaluation.published import PUBLISHED
from blip3o_grpo.evaluation.suites import SuiteResult, correct_prompts, uses_mask2former
from blip3o_grpo.rewards.detectors.image_sides import IMAGE_SIDES
from blip3o_grpo.rewards.geneval import TAGS
from blip3o_grpo.rewards.geneval.scoring import COUNTING_THRESHOLD, THRESHOLD

TITLES = dict(
    zip(TAGS, ("Single object", "Two objects", "Counting", "Colors", "Position", "Color attribution"), strict=True)
)
"""What published tables call GenEval's kinds of prompts, in their order."""
LONGEST_NAME = 28
"""Characters of a policy's name that a table shows."""

UNKNOWN = "–"

Score = tuple[float, float, float]
"""Mean, and the bounds of its 95 % interval."""


def suite_tables(result: SuiteResult) -> Group:
    """Everything to print about a result."""
    tables = [] if result.difference is None else [comparison_table(result)]
    if result.suite == "geneval":
        tables.append(geneval_table(result))
    elif result.difference is None:
        tables.append(scores_table(result))
    return Group(*tables)


def scores_table(result: SuiteResult) -> Table:
    """One policy's scores."""
    table = Table("score", "mean", "95 % interval", title=_title(result), title_justify="left")
    for name, (mean, low, high) in scores(result.evaluations[0]).items():
        table.add_row(name, f"{mean:.3f}", f"{low:.3f} to {high:.3f}")
    return table


def comparison_table(result: SuiteResult) -> Table:
    """Both policies' scores, and the difference with its paired interval."""
    table = Table(title=f"{_title(result)}, the same for both policies", box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    table.title_justify = table.caption_justify = "left"
    table.add_column("score", no_wrap=True)
    for policy in result.policies:
        table.add_column(Text(short_name(policy)), justify="right", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    first, second = (scores(evaluation) for evaluation in result.evaluations)
    for name, (mean, low, high) in scores(result.difference).items():
        values = (f"{first[name][0]:.3f}", f"{second[name][0]:.3f}")
        table.add_row(_score_title(name, result), *values, f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}")
    table.caption = "Difference: first minus second policy. Interval: paired bootstrap by prompt.\n"
    return table


def geneval_table(result: SuiteResult) -> Group:
    """GenEval's usual table: a row per policy, and below them what others have published."""
    name = result.reward.name
    tags = list(dict.fromkeys([*TAGS, *(tag for evaluation in result.evaluations for tag in evaluation.tags[name])]))
    table = Table(title=_title(result), title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Model", overflow="fold")
    for tag in (*tags, "overall"):  # one word a line, so that all columns fit into 80 characters
        table.add_column(_tag_title(tag).replace(" ", "\n"), justify="right", no_wrap=True)
    for policy, evaluation in zip(result.policies, result.evaluations, strict=True):
        measured = scores(evaluation)
        cells = [_cell(measured.get(f"{name}/{tag}")) for tag in (*tags, "overall")]
        table.add_row(Text(short_name(policy), style="bold"), *cells)
    table.add_section()
    table.add_row(Text("Published, for reference:", style="italic"))
    for row in PUBLISHED:
        cells = [short(row.tags[tag]) if tag in row.tags else UNKNOWN for tag in tags]
        table.add_row(f"{row.model}{' †' if row.rewritten else ''}", *cells, short(row.overall), style="dim")
    return Group(table, Text("\n" + "\n".join(_notes(result))))


def scores(evaluation: Evaluation) -> dict[str, Score]:
    """Every score of an evaluation by the name it is printed with."""
    found = {name: (mean, *evaluation.intervals[name]) for name, mean in evaluation.means.items()}
    for name, tags in evaluation.tags.items():
        found |= {f"{name}/{tag}": values for tag, values in tags.items()}
    return found


def short(value: float) -> str:
    """`.58`, `1.00`, `-.05`: as published tables write scores."""
    return f"{value:.2f}".replace("0.", ".", 1)


def short_name(policy: str) -> str:
    """A policy's name as given, or the end of it."""
    if len(policy) <= LONGEST_NAME:
        return policy
    return f"…{policy.rstrip('/')[1 - LONGEST_NAME :]}"


def _score_title(name: str, result: SuiteResult) -> str:
    """`geneval/two_object` as `Two objects`; other scores by their name."""
    if name == result.reward.name:
        return "all images" if result.suite == "geneval" else name
    return _tag_title(name.removeprefix(f"{result.reward.name}/"))


def _tag_title(tag: str) -> str:
    return TITLES.get(tag, tag.replace("_", " ").capitalize())


def _cell(score: Score | None) -> Text:
    """Mean, and below it the interval."""
    if score is None:
        return Text(UNKNOWN)
    mean, low, high = score
    return Text.assemble((short(mean), "bold"), "\n", (f"{short(low)}–{short(high)}", "dim"))


def _title(result: SuiteResult) -> str:
    first = result.evaluations[0]
    return f"{result.suite}: {first.num_prompts} prompts, {first.images_per_prompt} images each"


def _thresholds(result: SuiteResult) -> str:
    """Above which scores detections counted, and what else departs from the official way of looking."""
    options = result.reward.options
    threshold, counting = options.get("threshold", THRESHOLD), options.get("counting_threshold", COUNTING_THRESHOLD)
    sides = (options.get("detector_options") or {}).get("image_sides", IMAGE_SIDES)
    others = [
        *(() if uses_mask2former(result.reward) else ("another detector",)),
        *(() if options.get("colors", "clip") == "clip" else ("other colours",)),
        *(() if (threshold, counting) == (THRESHOLD, COUNTING_THRESHOLD) else ("other thresholds",)),
        *(() if tuple(sides) == IMAGE_SIDES else (f"images scaled to {sides[0]} x {sides[1]} px",)),
    ]
    official = f"not the official verdict: {', '.join(others)}" if others else "the official ones"
    return f"Detections count above {short(threshold)}, in counting above {short(counting)}: {official}."


def _notes(result: SuiteResult) -> list[str]:
    """What the table's numbers are, and what they are not."""
    options, name = result.reward.options, result.reward.name
    detector, colors = options.get("detector", "transformers"), options.get("colors", "clip")
    notes = [
        f"Second lines: 95 % bootstrap interval by prompt. Detector {detector}, colours {colors}, strict verdict.",
        _thresholds(result),
    ]
    for policy, evaluation in zip(result.policies, result.evaluations, strict=True):
        images, prompts = evaluation.means[name], correct_prompts(evaluation, name)
        notes.append(
            f"{short_name(policy)}: {images:.1%} of images correct, {prompts:.1%} of prompts with a correct one."
        )
    return [
        *notes,
        "Published rows are their authors' own, on GenEval's 553 prompts with Mask2Former and CLIP: other prompts and "
        "another detector than here unless you chose the same, so not a ranking. † prompts rewritten by a language "
        "model. – not known.",
    ]
