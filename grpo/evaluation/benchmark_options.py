"""Options of `blip3o-grpo eval` that belong to suites with official data, or to the others; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.suites import ReadingSuite, available_suites, find_any_suite

SUFFIX = ".json"
"""Of a saved result."""


def is_reading(suite: str) -> bool:
    """Whether a suite has the policy read; raises as `find_any_suite`."""
    return isinstance(find_any_suite(suite), ReadingSuite)


def is_benchmark(suite: str) -> bool:
    """Whether a suite has official data for images; raises as `find_any_suite`."""
    found = find_any_suite(suite)
    return not isinstance(found, ReadingSuite) and found.benchmark is not None


def refuse_options(given: Mapping[str, Any], why: str) -> None:
    """Refuse options that were given and mean nothing here.

    Raises:
        ConfigError: naming the first of them.
    """
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name}: {why}")


def refuse_saved(suite: str, policies: Sequence[str]) -> None:
    """Refuse saved results where a suite's results do not hold what a comparison needs.

    Raises:
        ConfigError: naming the suites whose results do.
    """
    for policy in policies:
        if policy.endswith(SUFFIX) and not Path(policy).is_dir():
            known = ", ".join(name for name in available_suites() if is_benchmark(name))
            raise ConfigError(
                f"{policy}: suite {suite!r} measures policies and takes no saved result, as only suites with official "
                f"data do ({known}); name two policies"
            )


def read_options(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping.

    Raises:
        ConfigError: one without `=`, or a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--suite-option {text}: expected NAME=VALUE")
        if name.strip() in found:
            raise ConfigError(f"--suite-option {text}: {name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found
