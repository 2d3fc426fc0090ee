"""Takes secrets out of texts that will be saved or shown: messages and tracebacks of rewards that failed, commands.

A secret is the value of an environment variable whose name says so, a user's part of a URL, or what looks like a
well-known service's token. Left out on purpose: secrets that a reward got in any other way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from blip3o_grpo.configs.secret_names import KNOWN_FORMAT, URL_USER, is_secret_name

MIN_LENGTH = 6
"""Shorter values are words that occur by chance."""
HIDDEN = "[hidden]"
_ASSIGNED = re.compile(r"""([\w-]+)(["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^,"'{}\[\]]+)""")
"""`key=value`, `key: value` and `"key": "value"` in an argument."""


def redact(text: str) -> str:
    """The text with every secret of this process replaced by the name of its variable, or by `hidden`."""
    secrets = {name: value for name, value in os.environ.items() if len(value) >= MIN_LENGTH and is_secret_name(name)}
    for name in sorted(secrets, key=lambda name: len(secrets[name]), reverse=True):  # one may hold another
        text = text.replace(secrets[name], f"[{name}]")
    return URL_USER.sub(HIDDEN, KNOWN_FORMAT.sub(HIDDEN, text))


def redact_command(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command without secrets: also what follows `--token`, `api_key=` or `{authorization: ...`."""
    shown: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before.startswith("-") and "=" not in before and is_secret_name(before.lstrip("-")):
            shown.append(HIDDEN)
        else:
            shown.append(redact(_ASSIGNED.sub(_without_value, argument)))
    return shown


def _without_value(found: re.Match[str]) -> str:
    name, sign, _ = found.groups()
    return f"{name}{sign}{HIDDEN}" if is_secret_name(name) else found[0]
