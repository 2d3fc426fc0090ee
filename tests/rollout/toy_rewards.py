"""Rewards for tests that are not about rewards; found by workers as `toy_rewards:Class`."""

import os
import signal
import sys
import time
from pathlib import Path

import ray


class Brightness:
    """Mean pixel value in 0..1."""

    def __call__(self, batch):
        return [float(image.mean()) / 255 for image in batch.images]


class Explained(Brightness):
    """Says which grey it saw."""

    def explained_scores(self, batch):
        return [(value, {"level": round(255 * value)}) for value in self(batch)]


class Relative(Brightness):
    """Brightness above that of the images it was fitted to."""

    def __init__(self):
        self.mean = None

    def fit_reference(self, batch):
        self.mean = sum(super().__call__(batch)) / len(batch)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]

    def __call__(self, batch):
        return [value - self.mean for value in super().__call__(batch)]


class Unrestorable(Relative):
    """Dies of its own state."""

    def load_state_dict(self, state):
        os._exit(1)


class Faulty:
    """Goes wrong in the way a prompt's metadata ask for."""

    def __call__(self, batch):
        fault = batch.metadata[0].get("fault", "")
        if fault == "raise":
            raise OSError("the model server is gone")
        if fault.startswith("die"):
            os._exit(int(fault.removeprefix("die") or 1))
        if fault == "leave":
            ray.actor.exit_actor()
        if fault == "term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        if fault.startswith("exit"):
            sys.exit(int(fault.removeprefix("exit ")))
        if fault == "interrupt":
            raise KeyboardInterrupt
        if fault == "surrogate":
            raise ValueError("half of a pair: \ud83d")
        if fault == "hang":
            time.sleep(1e6)
        if fault in ("hang once", "freeze once"):
            marker = Path(batch.metadata[0]["marker"])
            if not marker.exists():
                marker.touch()
                time.sleep(1e6) if fault == "hang once" else os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "short":
            return [0.5]
        return [float("nan") if fault == "nan" else None if fault == "none" else 0.5] * len(batch)


class Unloadable(Brightness):
    """Cannot be built."""

    def __init__(self):
        import a_library_nobody_installed  # noqa: F401
