"""Settings shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

# Before any library starts its threads: spinning thread pools of several processes stall each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Where trackio keeps its runs: it asks when it is imported, which accelerate does.
os.environ["TRACKIO_DIR"] = os.path.join(tempfile.gettempdir(), f"trackio-of-tests-{os.getuid()}")


@pytest.fixture
def small_disk(tmp_path):
    """An empty file system of 4 MB; skips where mounting one is not permitted."""
    yield from mounted(tmp_path / "disk", "4m")


@pytest.fixture
def remount():
    """Changes the options of a mounted file system: `remount(path, "ro")`."""

    def change(path, options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True, capture_output=True)

    return change


def mounted(path, size):
    """Generator around a tmpfs of `size` at `path`."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here (needs root on Linux)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
