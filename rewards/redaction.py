"""Takes secrets out of texts that will be saved or shown: messages and tracebacks of rewards that failed.

A secret is the value of an environment variable whose name says so, a user's part of a URL, or what looks like a
well-known service's token. Left out on purpose: secrets that a reward got in any other way.
"""

from __future__ import annotations

import os

from blip3o_grpo.configs.secret_names import KNOWN_FORMAT, URL_USER, is_secret_name

MIN_LENGTH = 6
"""Shorter values are words that occur by chance."""


def redact(text: str) -> str:
    """The text with every secret of this process replaced by the name of its variable, or by `hidden`."""
    secrets = {name: value for name, value in os.environ.items() if len(value) >= MIN_LENGTH and is_secret_name(name)}
    for name in sorted(secrets, key=lambda name: len(secrets[name]), reverse=True):  # one may hold another
        text = text.replace(secrets[name], f"[{name}]")
    return URL_USER.sub("[hidden]", KNOWN_FORMAT.sub("[hidden]", text))
