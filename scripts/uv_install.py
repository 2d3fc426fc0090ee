"""Installs locked packages with uv, from where pip is configured to: seconds of CPU time instead of minutes.

    .venv/bin/python scripts/uv_install.py -r requirements/cpu.txt

uv reads nothing of pip's configuration (files, PIP_... variables), so what names sources there is passed on. Exits with
uv's code, and with 3 where there is no uv.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration; a later one wins."""
OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}


def pip_settings(listed: Sequence[str]) -> dict[str, str]:
    """Key to value of pip's configuration.

    Args:
        listed: lines of `pip config list`, such as `global.index-url='...'`.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in listed:
        name, equals, value = line.partition("=")
        section, dot, key = name.rpartition(".")
        if equals and dot and section in SECTIONS and SECTIONS.index(section) >= found.get(key, (0, ""))[0]:
            found[key] = SECTIONS.index(section), ast.literal_eval(value)
    return {key: value for key, (_, value) in found.items()}


def uv_options(settings: dict[str, str]) -> list[str]:
    """What uv is told of them."""
    options = [
        part for key, option in OPTIONS.items() for value in settings.get(key, "").split() for part in (option, value)
    ]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return options


def main(arguments: Sequence[str]) -> int:
    """Command line; its arguments are those of `uv pip install`."""
    if importlib.util.find_spec("uv") is None:
        return 3
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = pip_settings(listed.stdout.splitlines())
    environment = dict(os.environ)
    if "cert" in settings:
        environment.setdefault("SSL_CERT_FILE", settings["cert"])
    # As pip: the best version of all sources, not the first source that has the name.
    command = ["uv", "pip", "install", "--python", sys.executable, "--no-deps", "--index-strategy", "unsafe-best-match"]
    return subprocess.call([sys.executable, "-m", *command, *uv_options(settings), *arguments], env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
