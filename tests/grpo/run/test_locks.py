"""Two processes never work on one run folder, and a killed one leaves no lock behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from blip3o_grpo.run.locks import RunFolderInUseError, hold, holder_pid

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
