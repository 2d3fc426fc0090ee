"""The suite `dpg`: DPG-Bench with any judge, on the official question file that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.benchmarks import (
    Benchmark,
    BenchmarkData,
    BenchmarkPrompt,
    Instructions,
    check_suite_options,
    decode,
    digest,
    read_data,
)
from blip3o_grpo.rewards.dpg.published import PUBLISHED
from blip3o_grpo.rewards.dpg.questions import DPGItem, as_metadata, circular, read_questions
from blip3o_grpo.rewards.dpg.results import MOST_IMAGES, check_results_path, read_results, write_results
from blip3o_grpo.rewards.dpg.reward import ASKED
from blip3o_grpo.rewards.dpg.scoring import columns
from blip3o_grpo.rewards.suites import ResultFormat, Suite

FILE = "dpg_bench.csv"
OPTIONS = {"skip_first_row": False, "last_image_categories": False}


def read(path: Path | None, options: Mapping[str, Any]) -> BenchmarkData:
    """The question file, or the folder that holds it.

    Raises:
        ConfigError: whatever is wrong with it, in one line.
    """
    chosen = check_suite_options("dpg", options, OPTIONS)
    what = f"the official {FILE}, or its folder"
    if path is None:
        raise ConfigError(f"suite 'dpg' asks the official questions: --data names {what}")
    file = path / FILE if path.is_dir() else path
    content = read_data(file, what)
    items, left_out = read_questions(decode(content, file), str(file), skip_first_row=bool(chosen["skip_first_row"]))
    return BenchmarkData(
        file,
        [BenchmarkPrompt(item.id, item.text, as_metadata(item)) for item in items],
        digest(content),
        protocol={
            "skip_first_row": chosen["skip_first_row"],
            "category_images": "last" if chosen["last_image_categories"] else "all",
        },
        instructions=Instructions(
            digest(ASKED.encode()), f"The judge was asked: {ASKED.format(question='the official question.')}"
        ),
        notes=_notes(chosen, items, left_out),
        left_out=len(left_out),
    )


def _notes(chosen: Mapping[str, Any], items: Sequence[DPGItem], left_out: Sequence[str]) -> tuple[str, ...]:
    lost = f"; item {left_out[0]!r} depends on it and is left out" if left_out else ""
    skipped = (f"As the official script does, the file's first data row is skipped{lost}.",)
    categories = (
        "Categories: of each prompt's last image alone, as in the official script."
        if chosen["last_image_categories"]
        else "Categories: answers before dependencies, of all images (the official script takes each prompt's last)."
    )
    # No refusal: the official loop, once through the file's order, gives these a score too.
    circles = [item.id for item in items if circular(item.questions)]
    turning = (
        f"In {len(circles)} items, first {circles[0]!r}, questions depend on themselves or on each other in a circle; "
        "they are scored in the file's order, as in the official script."
        if circles
        else ""
    )
    return (*(skipped if chosen["skip_first_row"] else ()), categories, *((turning,) if turning else ()))


SUITE = Suite(
    reward="dpg",
    recipe="tiny_ocr.yaml",
    needs="DPG-Bench questions: the key `dpg`",
    published=PUBLISHED,
    published_notes=(
        "Published rows are their authors' own, with the official judge (mPLUG-large): with another judge this is no "
        "ranking. – not known.",
    ),
    results=ResultFormat("DPG-Bench's", check_results_path, write_results, read_results),
    benchmark=Benchmark(1065, 4, read, columns, percent=True, most_images=MOST_IMAGES),
)
