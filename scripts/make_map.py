"""Writes docs/map.md: every module of the project with the first line of its docstring. A test holds the two together.

.venv/bin/python scripts/make_map.py
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "map.md"
FOLDERS = {
    "configs": "Typed configurations, recipes, prompts. Imports none of the others.",
    "rewards": "What scores an image.",
    "policies": "Models: layout, prompt format, log-probs, decoding; the tiny policy and its world.",
    "rollout": "Prompts to tokens to images to scores, on Ray actors.",
    "grpo": "Training, evaluation, studies, the command line, the Python API.",
    "scripts": "Set-up, tests, benchmarks, the build of the tiny policy.",
}
"""In the order of the arrows: a folder imports only from those above it."""


def build_map() -> str:
    """The page."""
    lines = [
        "# Map",
        "",
        "One line per module, from its docstring (`scripts/make_map.py` writes this page). A folder imports only from",
        "those above it. `blip3o_grpo` is `grpo/`; the other folders are its sub-packages.",
    ]
    for folder, purpose in FOLDERS.items():
        lines += ["", f"## {folder}/", "", purpose]
        for inner, modules in _by_folder(ROOT / folder).items():
            place = inner.relative_to(ROOT).as_posix()
            if inner != ROOT / folder:
                lines += ["", f"**{place}/** {_purpose(inner / '__init__.py')}"]
            lines += ["", *(f"- `{module.name}`: {_purpose(module)}" for module in modules)]
    return "\n".join(lines) + "\n"


def _by_folder(top: Path) -> dict[Path, list[Path]]:
    """Modules by folder, the top one first; `__init__` modules stand for their folders."""
    found: dict[Path, list[Path]] = {top: []}
    for file in sorted(top.rglob("*.py")):
        modules = found.setdefault(file.parent, [])
        if file.name != "__init__.py":
            modules.append(file)
    return {folder: modules for folder, modules in found.items() if modules}


def _purpose(module: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) if module.is_file() else None
    if not docstring:
        raise SystemExit(f"{module}: no docstring")
    return docstring.splitlines()[0]


if __name__ == "__main__":
    TARGET.write_text(build_map(), encoding="utf-8")
