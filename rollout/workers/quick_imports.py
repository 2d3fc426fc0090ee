"""Imports in less processor time: a run is a dozen processes, and each imports some of the same large libraries.

Modules make hundreds of thousands of objects that stay, and Python's garbage collector goes through all of them again
and again: a fifth of the time that a trainer rank's imports take. And transformers, diffusers and TRL each ask for a
table of all installed packages, which Python makes anew from some hundred folders: half a second each.
"""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_packages = cache(importlib.metadata.packages_distributions)


@contextmanager
def quick_imports() -> Iterator[None]:
    """In the block no garbage is collected, and the table of installed packages is made once in this process."""
    collecting, asked = gc.isenabled(), importlib.metadata.packages_distributions
    gc.disable()
    importlib.metadata.packages_distributions = _packages
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = asked
        if collecting:
            gc.enable()
