"""Something else where a regular file is expected: pipes nobody writes to, folders, devices, sockets, endless files."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tests.robustness.case import Case, World

PICTURES = "evaluations/before-images/index.jsonl"
RECORDS = "rollouts/step-000000/rollouts.jsonl"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:  # by a short name: a socket's path is limited
        here = os.getcwd()
        os.chdir(path.parent)
        bound.bind(path.name)
        os.chdir(here)


def _endless(path: Path) -> None:
    """Sparse: it takes no room."""
    with path.open("wb") as file:
        file.truncate(2**42)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "a pipe"),
    "a folder": (os.mkdir, "a folder"),
    "a link to a device": (lambda path: os.symlink("/dev/zero", path), "a device"),
    "a socket": (_socket, "a socket"),
    "4 TiB": (_endless, "larger than"),
}


def _in_place(path: Path, make: Callable[[Path], object]) -> Path:
    """Puts it where a file may be already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    return path


def _recipe(world, make):
    return world.cli("train", _in_place(world.folder / "recipe.yaml", make))


def _config_option(world, make):
    return world.cli("eval", "tiny", "--config", _in_place(world.folder / "recipe.yaml", make))


def _study(world, make):
    return world.cli("ablate", _in_place(world.folder / "study.yaml", make))


def _base(world, make):
    study = world.write("study.yaml", yaml.safe_dump({**world.study_values}))
    _in_place(world.folder / "base.yaml", make)
    return world.cli("ablate", study)


def _prompts(world, make):
    return world.train(f"prompts.train={_in_place(world.folder / 'p.jsonl', make)}")


def _prompts_option(world, make):
    return world.cli("eval", "tiny", "--prompts", _in_place(world.folder / "p.txt", make))


def _sampled_file(world, make):
    return world.cli("sample", _in_place(world.folder / "p.txt", make))


def _sections(world, make):
    return world.cli("rescore", world.run_copy(), "--config", _in_place(world.folder / "s.yaml", make))


def _in_run(name: str, *command: str):
    def act(world: World, make: Callable[[Path], object]) -> str:
        run = world.run_copy()
        _in_place(run / name, make)
        return world.report(run, name) if command == ("report",) else world.cli(command[0], run, *command[1:])

    return act


def _resumed(name: str):
    def act(world: World, make: Callable[[Path], object]) -> str:
        run = world.run_copy()
        _in_place(run / name, make)
        return world.train(run_dir=str(run))

    return act


def _in_checkpoint(name: str):
    def act(world: World, make: Callable[[Path], object]) -> str:
        folder = world.checkpoint()
        _in_place(folder / name, make)
        return world.train(policy={"path": str(folder)})

    return act


def _warmstart(world: World, spoil: Callable[[Path], object]) -> str:
    images = world.folder / "images"
    images.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "a.png")
    captions = world.write("captions.jsonl", json.dumps({"file_name": "a.png", "text": "a"}) + "\n")
    spoil(world.folder)
    values = {
        "run_dir": str(world.folder / "warm"),
        "policy": {"path": str(world.policy)},
        "images": str(images),
        "captions": str(captions),
    }
    return world.cli("warmstart", world.write("warm.yaml", yaml.safe_dump(values)))


def _captions(world, make):
    return _warmstart(world, lambda folder: _in_place(folder / "captions.jsonl", make))


def _picture(world, make):
    return _warmstart(world, lambda folder: _in_place(folder / "images" / "a.png", make))


def _written(name: str, *command: str):
    """A file that is to be written: a write would wait for a pipe's reader, a rename would replace a device."""

    def act(world: World, make: Callable[[Path], object]) -> str:
        target = _in_place(world.folder / name, make)
        run = shutil.copytree(world.run, world.folder / "finished")
        said = world.cli(*(str(run) if word == "RUN" else word for word in command), "--out", target)
        assert target.is_symlink() or not target.is_file()
        return said

    return act


READ = {
    "a recipe": _recipe,
    "--config": _config_option,
    "a study": _study,
    "a study's base": _base,
    "training prompts": _prompts,
    "--prompts": _prompts_option,
    "prompts of `sample`": _sampled_file,
    "--config of `rescore`": _sections,
    "config.yaml of a run": _in_run("config.yaml", "report"),
    "metrics.jsonl": _in_run("metrics.jsonl", "report"),
    "metrics.jsonl of a run that goes on": _resumed("metrics.jsonl"),
    "summary.json": _in_run("summary.json", "report"),
    "before.json": _in_run("evaluations/before.json", "report"),
    "index.jsonl": _in_run(PICTURES, "report"),
    "rollouts.jsonl": _in_run(RECORDS, "rescore", "--rewards", "reference_guard"),
    "config.json": _in_checkpoint("config.json"),
    "captions": _captions,
}
ANY_SIZE = {
    "tokenizer.json": _in_checkpoint("tokenizer.json"),
    "weights": _in_checkpoint("model.safetensors"),
    "a picture": _picture,
}
"""Nobody reads these whole before they are told from nonsense."""
WRITTEN = {
    "the report": _written("page.html", "report", "RUN"),
    "the picture of `sample`": _written("drawn.png", "sample", "a sign"),
}


def _cases(places: dict, kinds: list[str]) -> list[Case]:
    return [
        Case("files", f"{kind} for {place}", lambda world, act=places[place], k=kind: act(world, KINDS[k][0]), (said,))
        for place, kind in itertools.product(places, kinds)
        for said in [KINDS[kind][1]]
        if not (kind == "a folder" and place in ("--config of `rescore`",))
    ]


OTHERS = [kind for kind in KINDS if kind != "4 TiB"]
CASES = _cases(READ, list(KINDS)) + _cases(ANY_SIZE, OTHERS) + _cases(WRITTEN, OTHERS)
