"""Lives of a run in processes of their own, for tests that end them; rollouts come from the in-process stand-in.

Run as a program, it imports the slow libraries once and forks a life for every configuration file it reads from stdin:
it prints the life's process id, and its exit code when it is over.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]


class LifeServer:
    """Context manager: starts lives, one at a time."""

    def __enter__(self) -> LifeServer:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
        )
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def start(self, config_file: Path) -> Life:
        """A life of the run that this configuration names."""
        self.process.stdin.write(f"{config_file}\n".encode())
        return Life(int(self.process.stdout.readline()), self.process.stdout)


class Life:
    """A run's process, until it ends or is killed."""

    def __init__(self, pid: int, output: object):
        self.pid, self.output = pid, output

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return not select.select([self.output], [], [], 0)[0]

    def end(self, *, kill: bool = False) -> int:
        """Wait for its end, or bring it about; the exit code, negative for a signal."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        return int(self.output.readline())


def live(config_file: str) -> None:
    """Train or resume the run, as a Ray Train worker would."""
    import torch

    from blip3o_grpo.configs import load_run_config
    from blip3o_grpo.rank import run_training
    from blip3o_grpo.rollout import load_prompts
    from blip3o_grpo.run.folder import RunFolder
    from tests.grpo.toy_pipeline import FakePipeline

    torch.set_num_threads(1)
    config = load_run_config(config_file)
    RunFolder(config.run_dir).prepare(config)
    prompts = load_prompts(config.prompts.train)
    run_training(config, prompts, prompts, FakePipeline(config.policy.path, config))


def main() -> None:
    """Serve until stdin ends."""
    import blip3o_grpo.rank  # noqa: F401 - the slow import, once for all lives

    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    output.write(b"ready\n")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                live(line.strip())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        output.write(f"{pid}\n".encode())
        output.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())


if __name__ == "__main__":
    main()
