"""Two processes never work on one run folder, and a killed one leaves no lock behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from blip3o_grpo.run.locks import LockRefusedError, RunFolderInUseError, hold, holder_pid

HOLD = """
import sys, time
from pathlib import Path
from blip3o_grpo.run.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_folder_and_a_killed_one_lets_go(tmp_path):
    file = tmp_path / "run" / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderInUseError, match=rf"run is in use by process {other.pid} on "), hold(file):
            pass
        assert holder_pid(file) == other.pid
        started = time.monotonic()
        os.kill(other.pid, signal.SIGKILL)
        with hold(file, wait_s=10):
            assert holder_pid(file) == os.getpid()
        assert time.monotonic() - started < 5


def test_a_lock_can_be_taken_again_after_its_block(tmp_path):
    for _ in range(2):
        with hold(tmp_path / ".lock"):
            pass


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to", "mkdir", "pipe", "write"])
def test_what_is_no_lock_is_refused_and_left_as_it_is(tmp_path, make):
    precious, lock = tmp_path / "precious.txt", tmp_path / ".lock"
    precious.write_text("mine")
    if make in ("symlink_to", "hardlink_to"):
        getattr(lock, make)(precious)
    elif make == "mkdir":
        lock.mkdir()
    elif make == "pipe":
        os.mkfifo(lock)
    else:
        lock.write_text("mine")
    with pytest.raises(LockRefusedError, match=r"\.lock is "), hold(lock):
        pass
    assert precious.read_text() == "mine" and (make != "write" or lock.read_text() == "mine")


def test_an_empty_lock_and_one_of_an_earlier_run_are_taken(tmp_path):
    for content in ("", "process 1 on nowhere\n"):
        (tmp_path / ".lock").write_text(content)
        with hold(tmp_path / ".lock"):
            assert holder_pid(tmp_path / ".lock") == os.getpid()
