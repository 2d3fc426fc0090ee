"""The recipes and studies that come with the project, by name: `tiny_ocr` for `tiny_ocr.yaml` in this folder."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from blip3o_grpo.configs.loader import PATHS, ConfigError, exists
from blip3o_grpo.configs.mistakes import shown

RECIPES = Path(__file__).resolve().parent
STUDIES = RECIPES / "studies"
_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Shipped:
    """A recipe or study that comes with the project."""

    name: str
    command: str
    """Of `blip3o-grpo`, that takes the name."""
    purpose: str
    """First sentence of the file's first comment."""


def all_shipped() -> list[Shipped]:
    """Every shipped recipe, then every study, by name."""
    found = []
    for folder in (RECIPES, STUDIES):
        for file in sorted(folder.glob("*.yaml")):
            command = "ablate" if folder is STUDIES else "warmstart" if file.stem.endswith("warmstart") else "train"
            lines = file.read_text(encoding="utf-8").splitlines()
            comment = " ".join(line.removeprefix("#").strip() for line in lines[:4] if line.startswith("#"))
            found.append(Shipped(file.stem, command, comment.split(". ")[0].removesuffix(".")))
    return found


def find_recipe(recipe: str | Path, folder: Path = RECIPES) -> Path:
    """File of a recipe given by the name of a shipped one, or by its path, which need not exist.

    A word without an ending that is no file here is a name, even if a folder (such as an old run's) is called so.

    Args:
        recipe: name or path.
        folder: where the shipped ones lie: `RECIPES` or `STUDIES`.

    Raises:
        ConfigError: no shipped one has this name; the nearest is named.
    """
    name, path = str(recipe), Path(recipe)
    if not name:
        raise ConfigError("the recipe's name is empty; give the name of a shipped one or the path of a YAML file")
    if not _NAME.fullmatch(name) or (exists(name) and path.is_file()):
        return path
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(known)}"
        raise ConfigError(
            f"no shipped file is called {shown(name)}; {hint} (one of your own is given with its ending, .yaml)"
        )
    return folder / f"{name}.yaml"


def missing_hint(path: str | Path) -> str:
    """What to say of a file that a recipe names and that is not there."""
    if str(path).startswith(f"{RECIPES}/"):
        return "the first lines of a shipped recipe say how to get what it reads"
    return PATHS
