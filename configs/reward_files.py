"""Where the file of a reward `module:name` lies: beside the recipe, or in the working folder, or it is installed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def has_module(folder: str | Path, name: str) -> bool:
    """Whether `folder` holds the file or package that `name` (dots allowed) begins with."""
    top = name.partition(".")[0]
    return bool(top) and any(
        os.path.isfile(os.path.join(folder, *file)) for file in ((f"{top}.py",), (top, "__init__.py"))
    )


def reward_folder(target: str, folders: Iterable[str | Path]) -> str | None:
    """The first of the folders that holds the module of `module:name`; None: none does, or it is a registered name."""
    module, separator, _ = target.partition(":")
    if not separator or "/" in module or "\0" in module:
        return None
    return next((str(Path(folder).resolve()) for folder in folders if has_module(folder, module)), None)


def find_reward_folders(rewards: Any, folder: Path) -> None:
    """Set `folder` in reward sections as a YAML file in `folder` holds them, plain and not checked yet.

    One that is set already, as in the saved configuration of a run, stays as long as nothing else is found.
    """
    for reward in rewards if isinstance(rewards, list) else ():
        if isinstance(reward, dict) and isinstance(reward.get("type"), str):
            given = reward.get("folder")
            first = [folder / Path(given)] if isinstance(given, str) and "\0" not in given else []
            found = reward_folder(reward["type"], [*first, folder, Path.cwd()])
            if found is not None:
                reward["folder"] = found
