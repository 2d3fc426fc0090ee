"""Which judge is asked, and how: one block of options, the same in a recipe and in a file for `--judge`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from blip3o_grpo.configs.free_form import check_free_form
from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.rewards.http.transport import check_service
from blip3o_grpo.rewards.types import RewardError

OURS = ("model", "messages", "temperature", "stream", "n")
"""Keys of a request that `extra` must not change."""
MAX_CONCURRENCY = 1024


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
        """What a result says of its judge."""
        return {"model": self.model, "version": self.version}


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
        if not values.get(key) or not str(values[key]).strip():
            raise RewardError(f"{place}: {key} is missing; a judge needs url, model and version")
        if not isinstance(values[key], str):  # YAML reads 2024-05-13 as a date
            raise RewardError(f"{place}: {key} is {values[key]} and no text; write it in quotes")
    try:
        check_free_form(dict(values), place)
        options = JudgeOptions(**values)
        _check_values(options, place)
    except TypeError as error:  # a text where a number belongs cannot be compared
        raise RewardError(f"{place}: an option has the wrong type: {error}") from error
    except RewardError:
        raise
    except ValueError as error:
        raise RewardError(str(error)) from error
    return options


def load_judge(path: Path) -> dict[str, Any]:
    """The block of options of a YAML file, checked; its `cache` is relative to the file.

    Raises:
        RewardError: naming the file.
    """
    import yaml  # not in every environment of a reward

    try:
        values = yaml.safe_load(read_text(path))
    except FileNotFoundError as error:
        raise RewardError(f"{path}: no such file; --judge names a YAML file with url, model and version") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RewardError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise RewardError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if isinstance(values, Mapping) and isinstance(values.get("cache"), str):
        values = {**values, "cache": str(path.resolve().parent / Path(values["cache"]).expanduser())}
    judge_options(values, str(path))
    return dict(values)


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
    for name in ("retries", "concurrency"):
        if isinstance(getattr(options, name), bool) or not isinstance(getattr(options, name), int):
            raise RewardError(f"{place}: {name} is {getattr(options, name)!r}; it must be a whole number")
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise RewardError(f"{place}: concurrency is {options.concurrency}; it must be 1 to {MAX_CONCURRENCY}")
    for name in ("price_in", "price_out"):
        price = getattr(options, name)
        if price is not None and not price >= 0:
            raise RewardError(f"{place}: {name} is {price}; a price of a million tokens is 0 or more")
    if options.cache is not None and not Path(options.cache).is_absolute():
        raise RewardError(
            f"{place}: cache is {options.cache!r}; give a whole path, workers have another working folder"
        )
    if not isinstance(options.extra, Mapping):
        raise RewardError(f"{place}: extra must be a mapping, found {type(options.extra).__name__}")
    try:
        json.dumps(dict(options.extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RewardError(f"{place}: extra holds what JSON cannot say: {error}") from error
    for key in options.extra:
        if key in OURS:
            raise RewardError(f"{place}: extra must not hold {key!r}; a judge's {', '.join(OURS)} are set here")
