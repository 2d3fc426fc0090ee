"""Rewards for tests of workers: their calls, their deaths, their interpreters."""

import os
import signal
import sys
from pathlib import Path

from toy_rewards import Brightness, Relative


class KilledOnce(Relative):
    """Notes the size of every call in a folder; the first process to see three images is killed after half of them."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)

    def __call__(self, batch):
        half = len(batch) // 2
        scores = super().__call__(batch[:half])
        try:
            (self.folder / "killed").open("x").write(str(os.getpid()))
        except FileExistsError:
            (self.folder / f"{os.getpid()}-{len(os.listdir(self.folder))}").write_text(str(len(batch)))
            return scores + super().__call__(batch[half:])
        os.kill(os.getpid(), signal.SIGKILL)


class Picky(Brightness):
    """Refuses whole calls because of one prompt."""

    calls = []

    def __call__(self, batch):
        self.calls.append(len(batch))
        if any(values.get("fault") for values in batch.metadata):
            raise OSError("a fault in this call")
        return super().__call__(batch)


class Ranks(Brightness):
    """Compares siblings; notes the size of every call."""

    kind = "group"
    calls = []

    def __call__(self, batch):
        self.calls.append(len(batch))
        assert len(set(batch.prompts)) == 1
        means = super().__call__(batch)
        return [float(sum(mean > other for other in means)) for mean in means]


class Elsewhere(Brightness):
    """Needs a package that only its own interpreter has."""

    def __init__(self):
        from only_there import FACTOR

        assert not {"torch", "vllm", "transformers"} & set(sys.modules)
        self.factor = FACTOR

    def __call__(self, batch):
        return [self.factor * value for value in super().__call__(batch)]


class Unreadable(Brightness):
    """Fails with an error class that no other interpreter has."""

    def __init__(self):
        from only_there import OnlyThereError

        raise OnlyThereError("the licence has run out")
