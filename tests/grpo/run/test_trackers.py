"""Trackers show held-out scores and pictures beside the metrics, and a resumed run goes on in its own."""

import io
import json
import os
import sqlite3
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from blip3o_grpo.evaluation.heldout import evaluate, heldout_metrics
from blip3o_grpo.rank import make_args, run_training
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.run.trackers import prepare, send_later, tracked_as


@pytest.fixture
def live(make_config, fake_pipeline, prompts):
    """Runs a configuration as the driver does, on the in-process pipeline; `stop_at`: until that step."""

    def run(config, stop_at=None):
        folder, pipeline = RunFolder(config.run_dir), fake_pipeline(config)
        folder.prepare(config)
        if not (folder.evaluations / "before.json").is_file():
            pipeline.version = 0
            evaluate(pipeline, prompts, config, name="before", step=0, folder=folder)
        if stop_at is not None:
            pipeline.stop_at = stop_at
            with pytest.raises(KeyboardInterrupt):
                run_training(config, prompts, prompts, pipeline)
            return None
        run_training(config, prompts, prompts, pipeline)
        after = evaluate(pipeline, prompts, config, name="after", step=config.trainer.max_steps, folder=folder)
        send_later(config.report_to, folder, heldout_metrics(after), folder.grids / "after.png", after.step)
        return folder

    return run


@pytest.fixture
def configured(make_config):
    def configure(*trackers):
        return make_config(
            trainer={"max_steps": 4},
            evaluation={"every_steps": 2, "images_per_prompt": 2, "num_prompts": 4, "grid_prompts": 2},
            checkpoint={"every_steps": 1},
            report_to=list(trackers),
        )

    return configure


def test_tensorboard_has_scores_and_pictures_before_during_and_after_once(live, configured):
    """Also of a run that was stopped in step 4 and resumed: no step twice, and none missing."""
    config = configured("tensorboard")
    live(config, stop_at=4)
    folder = live(config)
    events = EventAccumulator(str(folder.tensorboard), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/reward/mean")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("train/heldout/target")] == [0, 2, 4]
    assert [event.step for event in events.Scalars("train/interval/heldout/target/low")] == [0, 2, 4]
    pictures = events.Images("heldout/pictures")
    assert [event.step for event in pictures] == [0, 2, 4]
    for name, event in zip(("before", "step-2", "after"), pictures, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        np.testing.assert_array_equal(shown, np.asarray(Image.open(folder.grids / f"{name}.png").convert("RGB")))


def test_a_run_has_one_id_and_the_users_own_settings_win(configured, monkeypatch):
    config = configured()
    folder = RunFolder(config.run_dir)
    id_, name = tracked_as(folder)
    assert tracked_as(RunFolder(config.run_dir)) == (id_, name)
    assert name == f"{folder.path.parent.name}/{folder.path.name}-{id_[:4]}"
    for variable in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    prepare(folder)
    assert (os.environ["WANDB_RUN_ID"], os.environ["WANDB_RESUME"], os.environ["WANDB_NAME"]) == (id_, "allow", name)
    assert (os.environ["WANDB_PROJECT"], os.environ["WANDB_DIR"]) == ("mine", str(folder.path))
    for variable in ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.delenv(variable)
    tracked = config.model_copy(update={"report_to": ("trackio",)})
    args = make_args(tracked, 4, folder)
    assert (args.run_name, args.project) == (name, "blip3o-grpo")


def wandb_records(content):
    """The records of a `.wandb` file, which is a LevelDB log behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, pending = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # what is left of a block holds no header
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        pending += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(pending)
            yield record
            pending = b""


def test_wandb_goes_on_in_the_same_run_offline(live, configured, monkeypatch):
    """Every offline part of a stopped, resumed and finished run carries one id; `wandb sync` makes one run of them."""
    pytest.importorskip("wandb")
    for variable, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(variable, value)
    for variable in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_DIR"):
        monkeypatch.setenv(variable, "")  # for monkeypatch to take away what the run sets
        monkeypatch.delenv(variable)
    config = configured("wandb")
    live(config, stop_at=3)
    folder = live(config)
    id_, _ = tracked_as(folder)
    parts = sorted((folder.path / "wandb").glob("offline-run-*"))
    assert len(parts) == 3 and all(part.name.endswith(id_) for part in parts)
    steps, scores, pictures = [], {}, []
    for part in parts:
        for record in wandb_records(next(part.glob("*.wandb")).read_bytes()):
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            step = items.get("train/global_step")
            if "train/reward/mean" in items:
                steps.append(step)
            if "train/heldout/target" in items:
                scores[step] = items["train/heldout/target"]
            if any(name.startswith("heldout/pictures") for name in items):
                pictures.append(step)
    assert steps == [1, 2, 3, 4] and sorted(scores) == sorted(pictures) == [0, 2, 4]
    assert scores[4] == json.loads((folder.evaluations / "after.json").read_text())["means"]["target"]


def test_trackio_goes_on_in_the_same_run(live, configured):
    trackio = pytest.importorskip("trackio")
    config = configured("trackio")
    live(config, stop_at=3)
    folder = live(config)
    _, name = tracked_as(folder)
    with sqlite3.connect(trackio.utils.TRACKIO_DIR / "blip3o-grpo.db") as connection:
        rows = connection.execute("select metrics from metrics where run_name = ?", [name]).fetchall()
    logged = [json.loads(text) for (text,) in rows]
    assert [line["train/global_step"] for line in logged if "train/reward/mean" in line] == [1, 2, 3, 4]
    assert [line["train/global_step"] for line in logged if "train/heldout/target" in line] == [0, 2, 4]
    assert [line["train/global_step"] for line in logged if "heldout/pictures" in line] == [0, 2, 4]
