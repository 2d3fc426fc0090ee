"""Lets this checkout be imported as `blip3o_grpo`, by Python and by every editor: a folder of links that a .pth names.

    .venv/bin/python scripts/link_package.py FOLDER

An editable install maps names to folders by an import hook, which type checkers and editors cannot follow. Links to
folders can be followed by all, and a new file in a linked folder is there at once. A new file or folder directly in
`grpo/` is found by the import hook until `scripts/setup_env.sh` runs again.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "blip3o_grpo"
FOLDERS = ("configs", "policies", "rewards", "rollout")
"""Become sub-packages beside what `grpo/` holds."""


def link(folder: Path, root: Path = ROOT) -> None:
    """Make `folder/blip3o_grpo` anew: links to the parts of the checkout `root`."""
    package = folder / NAME
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    own = [path for path in (root / "grpo").iterdir() if path.name != "__pycache__"]
    for source in (*own, *(root / name for name in FOLDERS)):
        (package / source.name).symlink_to(source)


def name_in_pth(folder: Path) -> None:
    """Put `folder` on the path of this interpreter, by a .pth file."""
    Path(sysconfig.get_path("purelib"), f"{NAME}.pth").write_text(f"{folder}\n", encoding="utf-8")


def describe(folder: Path, root: Path = ROOT) -> None:
    """Put beside the links what an installation tells of itself, its version and the registered rewards and suites: for
    interpreters into which nothing is to be installed.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    told = folder / f"{NAME}-{project['version']}.dist-info"
    told.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (told / "METADATA").write_text(metadata, encoding="utf-8")
    (told / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    link(Path(sys.argv[1]).resolve())
    name_in_pth(Path(sys.argv[1]).resolve())
