"""A manifest says whether a folder is the complete checkpoint of a step, and what is wrong with it."""

import hashlib
import json
import os
import runpy
import sys
import threading

import pytest
from pydantic import ValidationError

from blip3o_grpo.run.manifest import FILE, accept, fault, read_manifest, set_score, write_manifest

WEIGHTS = b"weights"


@pytest.fixture
def checkpoint(tmp_path):
    """A complete checkpoint of step 6."""
    folder = tmp_path / "checkpoint-6"
    (folder / "optimizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "optimizer" / "state.pt").write_bytes(bytes(1000))
    write_manifest(folder, 6, score=0.25)
    return folder


def test_every_file_is_listed_with_its_size_and_hash_and_the_manifest_is_not(checkpoint):
    written = json.loads((checkpoint / FILE).read_text())
    assert written["step"] == 6 and written["score"] == 0.25
    assert set(written["files"]) == {"model.safetensors", "optimizer/state.pt"}
    assert written["files"]["model.safetensors"] == {"size": 7, "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    assert written["files"]["optimizer/state.pt"]["size"] == 1000
    again = write_manifest(checkpoint, 7)
    assert set(again.files) == set(written["files"]) and (again.step, again.score) == (7, None)
    assert read_manifest(checkpoint) == again


def test_a_score_may_come_later_and_nothing_else_changes(checkpoint):
    before = read_manifest(checkpoint)
    set_score(checkpoint, 0.75)
    assert read_manifest(checkpoint) == before.model_copy(update={"score": 0.75})
    assert fault(checkpoint, 6, full=True) is None
    set_score(checkpoint, None)
    assert read_manifest(checkpoint).score is None


def test_a_manifest_can_be_read_by_people_and_is_not_changed_in_memory(checkpoint):
    text = (checkpoint / FILE).read_text()
    assert text.startswith('{\n "step": 6,\n "score": 0.25,\n "files": {\n  "') and text.endswith("}\n")
    manifest = read_manifest(checkpoint)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.step = 7
    with pytest.raises(ValidationError, match="frozen"):
        manifest.files["model.safetensors"].size = 8


def test_a_complete_checkpoint_has_no_fault_and_further_files_do_not_matter(checkpoint):
    (checkpoint / "notes.txt").write_text("mine")
    assert fault(checkpoint, 6, full=True) is None and fault(checkpoint, 6, full=False) is None


def damage(folder, how):
    model = folder / "model.safetensors"
    if how == "cut":
        model.write_bytes(WEIGHTS[:-1])
    elif how == "longer":
        model.write_bytes(WEIGHTS + b"!")
    elif how == "missing":
        (folder / "optimizer" / "state.pt").unlink()
    elif how == "a folder instead":
        model.unlink()
        model.mkdir()
    elif how == "no manifest":
        (folder / FILE).unlink()
    elif how == "torn manifest":
        (folder / FILE).write_text((folder / FILE).read_text()[:-20])
    elif how == "no text":
        (folder / FILE).write_bytes(b"\xff\xfe")
    elif how == "unknown key":
        (folder / FILE).write_text('{"step": 6, "files": {}, "more": 1}')
    elif how == "unknown key of a file":
        (folder / FILE).write_text('{"step": 6, "files": {"a": {"size": 1, "sha256": "0", "more": 1}}}')


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("cut", "model.safetensors has 6 bytes instead of 7"),
        ("longer", "model.safetensors has 8 bytes instead of 7"),
        ("missing", "optimizer/state.pt is missing"),
        ("a folder instead", "model.safetensors is missing"),
        ("no manifest", "it has no manifest.json"),
        ("torn manifest", "its manifest.json is damaged"),
        ("no text", "its manifest.json is damaged"),
        ("unknown key", "its manifest.json is damaged"),
        ("unknown key of a file", "its manifest.json is damaged"),
    ],
)
def test_damage_is_named(checkpoint, how, reason, full):
    damage(checkpoint, how)
    assert fault(checkpoint, 6, full=full).startswith(reason)


def test_a_changed_byte_shows_in_the_hash_only(checkpoint):
    (checkpoint / "model.safetensors").write_bytes(WEIGHTS.upper())
    assert fault(checkpoint, 6, full=False) is None
    assert fault(checkpoint, 6, full=True).startswith("model.safetensors is not what was written")


def test_a_manifest_belongs_to_its_step(checkpoint):
    assert fault(checkpoint, 5, full=True) == "it holds step 6"


def test_a_pipe_in_place_of_the_manifest_is_not_waited_for(checkpoint):
    pipe, found = checkpoint / FILE, []
    pipe.unlink()
    os.mkfifo(pipe)

    def read():
        found.extend([read_manifest(checkpoint), fault(checkpoint, 6, full=False)])

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(timeout=10)
    waited = reader.is_alive()
    while reader.is_alive():  # it is let go
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        reader.join(timeout=0.1)
    assert not waited
    assert found[0] is None and "no manifest.json" in found[1]


@pytest.mark.parametrize("name", ["checkpoint-6", "refused-checkpoint-6"])
def test_a_checkpoint_of_an_older_version_is_accepted_as_it_is(checkpoint, name):
    (checkpoint / FILE).unlink()
    folder = checkpoint.rename(checkpoint.with_name(name))
    accepted = accept(folder)
    assert accepted == checkpoint and fault(accepted, 6, full=True) is None


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_accepts_the_folder_it_is_given(checkpoint, monkeypatch):
    (checkpoint / FILE).unlink()
    monkeypatch.setattr(sys, "argv", ["manifest.py", str(checkpoint)])
    runpy.run_module("blip3o_grpo.run.manifest", run_name="__main__", alter_sys=True)
    assert fault(checkpoint, 6, full=True) is None
