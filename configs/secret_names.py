"""Which names and texts are secrets. Imports nothing: reward workers in other environments use it too."""

from __future__ import annotations

import re

_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION|"
    r"(API|ACCESS|AUTH|PRIVATE|SECRET|ENCRYPTION)_?KEY)$",
    re.IGNORECASE,
)
KNOWN_FORMAT = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[oprsu]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|"
    r"\bglpat-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""How tokens of well-known services look."""
URL_USER = re.compile(r"(?<=://)(?!(git|hg)@)[^/\s@]+(?=@)")
"""User name and password of a URL; `ssh://git@...` names no person."""


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret: `HF_TOKEN` does, `token_env` and `num_tokens` do not."""
    return _NAME.search(name.replace("-", "_")) is not None
