"""The suite `longtext`: LongText-Bench, whose prompts come with the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.shipped import RECIPES
from blip3o_grpo.rewards.benchmarks import (
    Benchmark,
    BenchmarkData,
    Instructions,
    check_suite_options,
    decode,
    digest,
    read_data,
)
from blip3o_grpo.rewards.longtext.records import read_prompts
from blip3o_grpo.rewards.longtext.results import check_results_path, read_results, write_results
from blip3o_grpo.rewards.longtext.reward import ASKED
from blip3o_grpo.rewards.longtext.scoring import LANGUAGES, columns
from blip3o_grpo.rewards.suites import ResultFormat, Suite


def read(path: Path | None, options: Mapping[str, Any]) -> BenchmarkData:
    """The prompts of one language: those that come along, or a file in the official format.

    Raises:
        ConfigError: whatever is wrong with them, in one line.
    """
    language = check_suite_options("longtext", options, {"language": "en"})["language"]
    if language not in LANGUAGES:
        raise ConfigError(f"suite 'longtext': language is {language!r}; it is one of {', '.join(LANGUAGES)}")
    file = RECIPES / f"prompts/longtext_{language}.jsonl" if path is None else path
    content = read_data(file, "a prompt file of LongText-Bench (text_prompts.jsonl)")
    return BenchmarkData(
        file,
        read_prompts(decode(content, file), str(file), language),
        digest(content),
        reward_options={"language": language},
        protocol={"language": language},
        instructions=Instructions(digest(ASKED.encode()), "The judge was asked to read in this project's own words."),
        notes=(f"Text accuracy: {'words' if language == 'en' else 'characters'} read by wanted, pooled over images.",),
    )


SUITE = Suite(
    reward="longtext",
    recipe="tiny_ocr.yaml",
    needs="texts to be written: the list `text`",
    results=ResultFormat("LongText-Bench's", check_results_path, write_results, read_results),
    benchmark=Benchmark(160, 4, read, columns),
)
