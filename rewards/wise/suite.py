"""The suites `wise` and `wise-verified`: WISE with any judge, on prompt files that the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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
from blip3o_grpo.rewards.judge.templates import places
from blip3o_grpo.rewards.suites import ResultFormat, Suite
from blip3o_grpo.rewards.wise import published, questions
from blip3o_grpo.rewards.wise.records import (
    LEGACY,
    VERIFIED,
    Edition,
    as_metadata,
    join_records,
    other_edition,
    read_records,
)
from blip3o_grpo.rewards.wise.results import (
    MOST_IMAGES,
    check_results_path,
    read_scores,
    read_verified_scores,
    write_results,
)
from blip3o_grpo.rewards.wise.scoring import legacy_columns, verified_columns

NUM_PROMPTS = 1000


def read(path: Path | None, options: Mapping[str, Any], *, edition: Edition, own_words: str) -> BenchmarkData:
    """The folder of an edition's official prompt files, or one such file.

    Raises:
        ConfigError: whatever is wrong with them, in one line.
    """
    suite = edition.suite
    chosen = check_suite_options(suite, options, {"instructions": None})
    what = f"WISE's folder `{edition.folder}` with {', '.join(edition.files)}, or one such file"
    if path is None:
        raise ConfigError(f"suite {suite!r}: WISE has no licence to come along with; --data names {what}")
    other = other_edition(edition)
    if path.name in other.files:
        raise ConfigError(f"{path}: a file of suite {other.suite!r}; in suite {suite!r} --data names {what}")
    files = [path / name for name in edition.files] if path.is_dir() else [path]
    contents = [read_data(file, what) for file in files]
    records = join_records(
        {
            str(file): read_records(decode(content, file), str(file), edition)
            for file, content in zip(files, contents, strict=True)
        }
    )
    given = None if chosen["instructions"] is None else _instructions(Path(chosen["instructions"]), suite)
    return BenchmarkData(
        path,
        [BenchmarkPrompt(str(record.id), record.prompt, as_metadata(record)) for record in records],
        digest(*contents),
        reward_options={} if given is None else {"instructions": given},
        protocol={"edition": edition.name},
        instructions=Instructions(
            digest((own_words if given is None else given).encode()),
            "The judge was asked in this project's own words; the official ones are given as "
            "--suite-option instructions=FILE."
            if given is None
            else f"The judge was asked as {chosen['instructions']} says.",
            given=given is not None,
        ),
    )


def _instructions(file: Path, suite: str) -> str:
    what = "a text file with {prompt} and {explanation}"
    text = decode(read_data(file, what, "--suite-option instructions"), file)
    if not {"prompt", "explanation"} <= set(places(text)):
        raise ConfigError(f"{file}: what a judge is asked in suite {suite!r} must name {{prompt}} and {{explanation}}")
    return text


_NEVER = "another judge is not comparable (GPT-4o of another date gave .54 for .62). – not known."

SUITE = Suite(
    reward="wise",
    recipe="tiny_ocr.yaml",
    needs="a WISE record: the key `wise`",
    published=published.LEGACY,
    published_notes=(f"Published rows were judged by GPT-4o-2024-05-13: {_NEVER}",),
    results=ResultFormat("WISE's", check_results_path, write_results, read_scores),
    benchmark=Benchmark(
        NUM_PROMPTS,
        1,
        partial(read, edition=LEGACY, own_words=questions.LEGACY),
        legacy_columns,
        most_images=MOST_IMAGES,
    ),
)
VERIFIED_SUITE = Suite(
    reward="wise_verified",
    recipe="tiny_ocr.yaml",
    needs="a WISE record: the key `wise`",
    published=published.VERIFIED,
    published_notes=(f"Published rows were judged by Qwen3.5-35B-A3B: {_NEVER}",),
    results=ResultFormat("WISE_Verified's", check_results_path, write_results, read_verified_scores),
    benchmark=Benchmark(
        NUM_PROMPTS,
        1,
        partial(read, edition=VERIFIED, own_words=questions.VERIFIED),
        verified_columns,
        most_images=MOST_IMAGES,
    ),
)
