"""Settings shared by all tests."""

from __future__ import annotations

import os

# Before any library starts its threads: spinning thread pools of several processes stall each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
