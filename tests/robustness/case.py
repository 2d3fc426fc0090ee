"""What a malformed input is: something done in a small world that must end in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from blip3o_grpo.cli import app
from blip3o_grpo.errors import user_error


@dataclass(frozen=True)
class Case:
    """One malformed input."""

    kind: str
    name: str
    act: Callable[[World], str]
    """Meets the input and returns the message it got."""
    says: tuple[str, ...]
    """Parts of that message: the file, key or prompt, and what is wrong."""

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass
class World:
    """A valid recipe, policy and prompt file, which an action may spoil copies of."""

    folder: Path
    policy: Path
    recipe_values: dict[str, Any]
    study_values: dict[str, Any]
    run: Path
    server: Any = field(default=None)

    def cli(self, *args: Any) -> str:
        """The one line that `blip3o-grpo ARGS` writes to stderr, with exit code 2."""
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"a traceback instead of a sentence: {result.exception!r}") from result.exception
        assert result.exit_code == 2, result.output
        lines = [line for line in result.stderr.strip().splitlines() if line]
        assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
        return lines[0]

    def report(self, run: Path, name: str) -> str:
        """The one line of `blip3o-grpo report` on a run whose file `name` is damaged.

        Without its configuration nothing can be told of a run; else the report warns and shows the rest.
        """
        if name == "config.yaml":
            return self.cli("report", run)
        result = CliRunner().invoke(app, ["report", str(run)])
        assert result.exit_code == 0, f"{result.output} {result.exception!r}"
        lines = [line for line in result.stderr.strip().splitlines() if line]
        assert len(lines) == 1 and lines[0].startswith("warning: "), result.stderr
        return lines[0]

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """The message of the error for users that a function must raise."""
        with pytest.raises(Exception) as caught:  # noqa: B017 - which one is asserted below
            function(*args, **kwargs)
        assert user_error(caught.value) is caught.value, f"not an error for users: {caught.value!r}"
        assert str(caught.value).strip()
        return str(caught.value)

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def recipe(self, *, name: str = "recipe.yaml", **sections: Any) -> Path:
        values = json.loads(json.dumps(self.recipe_values))
        for key, section in sections.items():
            values[key] = {**values[key], **section} if isinstance(values.get(key), dict) else section
        return self.write(name, yaml.safe_dump(values))

    def train(self, *overrides: str, **sections: Any) -> str:
        return self.cli("train", self.recipe(**sections), *overrides)

    def study(self, **changes: Any) -> str:
        self.recipe(name="base.yaml")
        values = {**json.loads(json.dumps(self.study_values)), **changes}
        values = {key: value for key, value in values.items() if value is not None}
        return self.cli("ablate", self.write("study.yaml", yaml.safe_dump(values)))

    def checkpoint(self) -> Path:
        """A copy of the policy: links, so replace files instead of writing into them."""
        return Path(shutil.copytree(self.policy, self.folder / "checkpoint", copy_function=os.link))

    def run_copy(self) -> Path:
        """A copy of the finished run."""
        return Path(shutil.copytree(self.run, self.folder / "run"))


def replace(path: Path, content: bytes | str) -> None:
    """New content for a file that may be a link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; `...` removes one."""
    values = json.loads(path.read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not ...:
            values[key] = value
    replace(path, json.dumps(values))


def edit_tensors(folder: Path, edit: Callable[[dict], None]) -> None:
    """Change the tensors of a checkpoint's only file."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
