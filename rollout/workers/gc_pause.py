"""Python's garbage collector, paused while a process imports libraries.

Imports make hundreds of thousands of objects that stay, and the collector goes through all of them again and again: of
the 8 CPU seconds that a trainer rank's imports take, that is a fifth.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no garbage in the block; afterwards as before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
