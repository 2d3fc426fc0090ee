"""Which judge is asked, and how: one block of options, the same in a recipe and in a file for `--judge`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from blip3o_grpo.configs.free_form import check_free_form
from blip3o_grpo.rewards.http.transport import check_service
from blip3o_grpo.rewards.types import RewardError

OURS = ("model", "messages", "temperature", "stream", "n", "logprobs", "top_logprobs")
"""Keys of a request that `extra` must not change."""
MAX_CONCURRENCY = 1024
ASKS = "/chat/completions"
"""Path of questions, which is added to a judge's url."""
TEXTS = ("url", "model", "version", "token_env", "cache", "proxy")
NUMBERS = ("timeout", "patience_s", "price_in", "price_out")
WHOLE_NUMBERS = ("retries", "concurrency")
MAY_BE_EMPTY = ("token_env", "cache", "price_in", "price_out")
"""Options whose default is None."""


@dataclass(frozen=True)
class JudgeOptions:
    """A judge."""

    url: str
    """Of the server, with its version: `http://HOST:8000/v1`."""
    model: str
    """Name under which the server knows it."""
    version: str
    """Which weights these are: a date, a revision. Scores of two versions are never compared."""
    token_env: str | None = None
    """Name of the environment variable that holds the token; None: no token."""
    timeout: float = 120.0
    """Seconds that one request may take in all."""
    retries: int = 3
    """Further requests after one that was too slow, failed in the server, or was answered in another form."""
    patience_s: float = 60.0
    """Seconds to wait for a server that is not there."""
    concurrency: int = 8
    """Open requests at the same time, per worker."""
    cache: str | None = None
    """Folder of answers that were paid for; None: none are kept. In a recipe a whole path: workers have another
    working folder."""
    price_in: float | None = None
    """Price of a million tokens of questions and images, in any currency; None: unknown."""
    price_out: float | None = None
    """Price of a million tokens of answers; None: unknown."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of each request, such as `chat_template_kwargs: {enable_thinking: false}` of vLLM."""
    proxy: str = "public"
    """When to go through the environment's proxy: `public`, `always` or `never`, as of `remote`."""

    @property
    def identity(self) -> dict[str, str]:
        """What a result says of its judge; one that is told to think aloud, by `extra`, is another judge."""
        named = {"model": self.model, "version": self.version}
        if not self.extra:
            return named
        extra = json.dumps(dict(self.extra), sort_keys=True)
        return {**named, "extra": hashlib.sha256(extra.encode()).hexdigest()[:12]}


def judge_options(values: Any, place: str) -> JudgeOptions:
    """Checked options.

    Args:
        values: a mapping of the keys above.
        place: where it stands, for messages.

    Raises:
        RewardError: naming the key, what is wrong, and the nearest right one.
    """
    known = {entry.name: entry for entry in fields(JudgeOptions)}
    if not isinstance(values, Mapping):
        raise RewardError(f"{place} must be a mapping with url, model and version, found {type(values).__name__}")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known)}"
            raise RewardError(f"{place}: unknown key {key!r}; {hint}")
    for key in ("url", "model", "version"):
        if values.get(key) is None or (isinstance(values[key], str) and not values[key].strip()):
            raise RewardError(f"{place}: {key} is missing; a judge needs url, model and version")
    try:
        check_free_form(dict(values), place)
        for key, value in values.items():
            _check_type(key, value, place)
        options = JudgeOptions(**values)
        _check_values(options, place)
    except RewardError:
        raise
    except ValueError as error:
        raise RewardError(str(error)) from error
    return options


def judge_name(identity: Mapping[str, str]) -> str:
    """A judge in words, from `JudgeOptions.identity`: `gpt-4o (2024-05-13)`."""
    extra = f", extra {identity['extra']}" if "extra" in identity else ""
    return f"{identity['model']} ({identity['version']}{extra})"


def load_judge(path: Path) -> dict[str, Any]:
    """The block of options of a YAML file, checked; its `cache` is relative to the file.

    Raises:
        RewardError: naming the file.
    """
    from blip3o_grpo.configs.loader import (
        ConfigError,
        exists,
        expand_user,
        read_yaml,
    )  # not in every reward's environment

    if not exists(str(path)):
        raise RewardError(f"{path}: no such file; --judge names a YAML file with url, model and version")
    try:
        values = read_yaml(path)
        if isinstance(values, Mapping) and isinstance(values.get("cache"), str) and values["cache"].strip():
            values = {**values, "cache": str(path.resolve().parent / expand_user(values["cache"]))}
    except ConfigError as error:
        raise RewardError(str(error)) from error
    judge_options(values, str(path))
    return dict(values)


def _check_type(key: str, value: Any, place: str) -> None:
    """Refuse what YAML reads as another type than the option has: `60s` is a text, `no` is false."""
    if value is None and key in MAY_BE_EMPTY:
        return
    if key in TEXTS and not isinstance(value, str):  # a plain 2024-05-13 is a date
        raise RewardError(f"{place}: {key} is {value!r:.60} and no text; write it in quotes")
    if key in (*NUMBERS, *WHOLE_NUMBERS):
        kinds, wanted = ((int,), "a whole number") if key in WHOLE_NUMBERS else ((int, float), "a number")
        if isinstance(value, bool) or not isinstance(value, kinds):
            default = next(entry.default for entry in fields(JudgeOptions) if entry.name == key)
            hint = "" if default is None else f", such as {default:g}"
            found = "empty" if value is None else f"{value!r:.60}"
            raise RewardError(f"{place}: {key} is {found}; it must be {wanted}{hint}")
    if key == "extra" and not isinstance(value, Mapping):
        raise RewardError(f"{place}: extra must be a mapping, found {type(value).__name__}")


def _check_values(options: JudgeOptions, place: str) -> None:
    check_service(
        f"{place}:",
        options.url,
        options.timeout,
        options.retries,
        options.patience_s,
        options.token_env,
        options.proxy,
    )
    address = options.url.rstrip("/")
    if address.endswith(ASKS):
        raise RewardError(f"{place}: url is {options.url!r}; leave {ASKS} out: {address.removesuffix(ASKS)!r}")
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise RewardError(f"{place}: concurrency is {options.concurrency}; it must be 1 to {MAX_CONCURRENCY}")
    for name in ("price_in", "price_out"):
        price = getattr(options, name)
        if price is not None and not price >= 0:
            raise RewardError(f"{place}: {name} is {price}; a price of a million tokens is 0 or more")
    if options.cache is not None and not options.cache.strip():
        raise RewardError(f"{place}: cache is empty; name a folder, or leave it out")
    if options.cache is not None and not Path(options.cache).is_absolute():
        raise RewardError(
            f"{place}: cache is {options.cache!r}; give a whole path, workers have another working folder"
        )
    _check_text_keys(options.extra, place)
    try:
        json.dumps(dict(options.extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RewardError(f"{place}: extra holds what JSON cannot say: {error}") from error
    for key in options.extra:
        if key in OURS:
            raise RewardError(f"{place}: extra must not hold {key!r}; a judge's {', '.join(OURS)} are set here")


def _check_text_keys(values: Any, place: str) -> None:
    """Refuse a key that is no text, at any depth of `extra`: JSON would make one of it."""
    if isinstance(values, Mapping):
        for key in values:
            if not isinstance(key, str):
                raise RewardError(f"{place}: extra has the key {key!r}, which is no text; write it in quotes")
        values = list(values.values())
    for inside in values if isinstance(values, list | tuple) else ():
        _check_text_keys(inside, place)
