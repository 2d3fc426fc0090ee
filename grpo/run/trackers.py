"""TensorBoard, W&B and trackio: what transformers' `report_to` does not send, and how a resumed run finds its own.

transformers' callbacks send a step's metrics. Here are the held-out evaluation before training, which is no step's, and
the one after it, which is measured when the trainer is gone, and the picture grids of all of them. All names and step
numbers are those of transformers' callbacks, so an evaluation is one more point of the same curve.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blip3o_grpo.configs.atomic import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from blip3o_grpo.run.folder import RunFolder

PROJECT = "blip3o-grpo"
STEP = "train/global_step"
"""The x-axis of transformers' callbacks."""
GRID = "heldout/pictures"


def tracked_as(folder: RunFolder) -> tuple[str, str]:
    """Id and name under which trackers know a run, the same after every resume; made when first asked for.

    The name says where the run lies, `runs/tiny_ocr-1f3c`, and ends differently for every run.
    """
    if not folder.tracked.is_file():
        write_atomically(folder.tracked, json.dumps({"id": secrets.token_hex(4)}) + "\n")
    id_ = str(json.loads(folder.tracked.read_text(encoding="utf-8"))["id"])
    return id_, f"{folder.path.parent.name}/{folder.path.name}-{id_[:4]}"


def prepare(folder: RunFolder) -> None:
    """Have transformers' W&B callback, which starts the run, continue the folder's own.

    W&B reads these variables; what the user has set stays.
    """
    id_, name = tracked_as(folder)
    for variable, value in wandb_variables(folder.path, id_, name).items():
        os.environ.setdefault(variable, value)


def wandb_variables(path: Path, id_: str, name: str) -> dict[str, str]:
    """What W&B is told of a run."""
    return {
        "WANDB_PROJECT": PROJECT,
        "WANDB_RUN_ID": id_,
        "WANDB_RESUME": "allow",
        "WANDB_NAME": name,
        "WANDB_DIR": str(path),
    }


Send = Callable[[Mapping[str, float], Path | None, int], None]
"""Metrics, a picture file and a step."""


def to_tensorboard(writer: SummaryWriter) -> Send:
    """Into the files that a `SummaryWriter` writes."""

    def send(metrics: Mapping[str, float], picture: Path | None, step: int) -> None:
        import numpy as np

        from blip3o_grpo.rewards.images import open_rgb

        for name, value in metrics.items():
            writer.add_scalar(f"train/{name}", value, step)
        if picture is not None:
            writer.add_image(GRID, np.asarray(open_rgb(picture)), step, dataformats="HWC")
        writer.flush()

    return send


def to_wandb(metrics: Mapping[str, float], picture: Path | None, step: int) -> None:
    """To the W&B run of this process."""
    import wandb

    _log(wandb, metrics, picture, step)


def to_trackio(metrics: Mapping[str, float], picture: Path | None, step: int) -> None:
    """To the trackio run of this process."""
    import trackio

    _log(trackio, metrics, picture, step)


def _log(library: Any, metrics: Mapping[str, float], picture: Path | None, step: int) -> None:
    found: dict[str, Any] = {f"train/{name}": value for name, value in metrics.items()}
    if picture is not None:
        found[GRID] = library.Image(str(picture))
    library.log({**found, STEP: step})


def send_later(
    report_to: tuple[str, ...], folder: RunFolder, metrics: Mapping[str, float], picture: Path, step: int
) -> None:
    """Send an evaluation to a run's trackers when its trainer, which had them open, is gone."""
    id_, name = tracked_as(folder)
    if "tensorboard" in report_to:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder.tensorboard)) as writer:
            to_tensorboard(writer)(metrics, picture, step)
    if "wandb" in report_to:
        import wandb

        own = wandb_variables(folder.path, id_, name)  # given, not set: this process may go on to another run
        project, run_id, resume, title, place = (os.environ.get(variable, value) for variable, value in own.items())
        wandb.init(project=project, id=run_id, resume=resume, name=title, dir=place)
        wandb.define_metric(STEP)
        wandb.define_metric("*", step_metric=STEP, step_sync=True)
        to_wandb(metrics, picture, step)
        wandb.finish()
    if "trackio" in report_to:
        import trackio

        with redirect_stdout(io.StringIO()):  # nine lines about itself
            trackio.init(project=PROJECT, name=name, resume="allow")
            to_trackio(metrics, picture, step)
            trackio.finish()


def finish(report_to: tuple[str, ...]) -> None:
    """Close what transformers' callbacks leave open until their process ends, which in a Ray worker is a kill."""
    if "wandb" in report_to:
        import wandb

        wandb.finish()
    if "trackio" in report_to:
        import trackio

        if trackio.context_vars.current_run.get() is not None:  # the callback ends it where training ended by itself
            trackio.finish()
