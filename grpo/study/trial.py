"""One trial's process: `blip3o-grpo train` on a run folder's own configuration, dying with the trial that started it.

`python -m blip3o_grpo.study.trial RUN/config.yaml PARENT_PID`. A process of its own keeps a run's signals, libraries
and crashes out of Ray Tune's worker, and makes it exactly what the command line would have started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent is gone: a run must not go on writing beside its successor."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone already
        sys.exit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    from blip3o_grpo.cli import app

    app(["train", sys.argv[1]])
