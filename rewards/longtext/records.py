"""LongText-Bench's prompt files: JSON lines with `prompt`, `text` (what is to be written), `prompt_id`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.strict_json import parse_json
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt
from blip3o_grpo.rewards.longtext.scoring import chinese_share, found_and_wanted
from blip3o_grpo.rewards.types import RewardError


def read_prompts(text: str, file: str, language: str) -> list[BenchmarkPrompt]:
    """Prompts of a file; their ids are `en-0`, `zh-0` and so on.

    Raises:
        ConfigError: naming file, line and key; or texts in the other language, which would score next to nothing.
    """
    found: dict[str, BenchmarkPrompt] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
        prompt = _prompt(record, place, language)
        if prompt.id in found:
            raise ConfigError(f"{place}: prompt_id {record['prompt_id']} appears twice")
        found[prompt.id] = prompt
    if not found:
        raise ConfigError(f"{file}: holds no prompts")
    share = chinese_share([text for prompt in found.values() for text in prompt.metadata["text"]])
    if language == "en" and share > 0.5:
        raise ConfigError(f"{file}: the wanted texts are mostly Chinese; give --suite-option language=zh")
    if language == "zh" and share == 0:
        raise ConfigError(f"{file}: the wanted texts hold no Chinese character; give --suite-option language=en")
    return list(found.values())


def texts_of(metadata: Mapping[str, Any], language: str) -> list[str]:
    """The wanted texts of a prompt's metadata, the key `text`.

    Raises:
        RewardError: no list of texts, or nothing in them that counts in this language.
    """
    texts = metadata["text"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RewardError(f"`text` must be a list of texts to be written, found {texts!r:.100}")
    if not found_and_wanted(texts, "", language)[1]:
        raise RewardError(f"`text` holds nothing that counts in the language {language!r}: {texts!r:.100}")
    return texts


def _prompt(record: Any, place: str, language: str) -> BenchmarkPrompt:
    if not isinstance(record, Mapping):
        raise ConfigError(f"{place}: expected an object with prompt, text and prompt_id, found {type(record).__name__}")
    for key in ("prompt", "text", "prompt_id"):
        if key not in record:
            raise ConfigError(f"{place}: lacks the key {key!r}")
    number = record["prompt_id"]
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigError(f"{place}: prompt_id is {number!r}; it must be a whole number")
    if not isinstance(record["prompt"], str) or not record["prompt"].strip():
        raise ConfigError(f"{place}: prompt is missing or no text")
    try:
        texts_of(record, language)
    except RewardError as error:
        raise ConfigError(f"{place}: {error}") from None
    kept = {key: value for key, value in record.items() if key not in ("prompt", "id")}
    return BenchmarkPrompt(f"{language}-{number}", record["prompt"].strip(), kept)
