"""Hooks of `mkdocs build` (see mkdocs.yml): pages made from the code, files beside the pages, and the check of both.

A page may link to any file of the repository: pictures and examples travel into the site under `files/`. What the check
finds is a warning with page and line, and `mkdocs build --strict` fails on warnings.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as SitePage

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts.docs_site import api, commands, configuration, seams  # noqa: E402
from scripts.docs_site.markdown import LINK, Page  # noqa: E402
from scripts.docs_site.named import Checker, resolve  # noqa: E402

log = logging.getLogger("mkdocs.hooks.docs_site")

COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Files of the root that are pages of the site too."""
UNPUBLISHED = ("README.md",)
"""Checked like pages, but no pages."""
FILES = "files"
"""Where files of the repository lie in the site."""


def made_pages(root: Path) -> dict[str, str]:
    """Pages that exist in the site only, by their path in docs/."""
    return {
        "configuration.md": configuration.build_page(),
        "commands.md": commands.build_page(),
        "api.md": api.build_page(),
        "seams.md": seams.build_page(root),
    }


def all_pages(root: Path) -> tuple[dict[str, Page], set[str]]:
    """Every page by its path in the repository, and which of them are made."""
    made = {f"docs/{name}": Page(f"docs/{name}", text) for name, text in made_pages(root).items()}
    paths = [*sorted((root / "docs").rglob("*.md")), *(root / name for name in (*COPIED, *UNPUBLISHED))]
    written = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {**{path: Page(path, text) for path, text in written.items()}, **made}, set(made)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made and what pages link to; check every page once all are known."""
    root = Path(config.config_file_path).parent
    pages, made = all_pages(root)
    for path in made:
        files.append(File.generated(config, path.removeprefix("docs/"), content=pages[path].text))
    for source, target in COPIED.items():
        files.append(File.generated(config, target, content=_as_page(source, pages[source].text)))
    checker = Checker(root, pages, made)
    for page in pages.values():
        if page.path != "CHANGELOG.md":  # what was true of versions past
            for problem in checker.problems(page):
                log.warning("%s", problem)
        for _, link in page.links:
            path = resolve(page.path, link.partition("#")[0]) if "://" not in link else None
            if path and page.path not in UNPUBLISHED and _travels(path) and (root / path).is_file():
                address = f"{FILES}/{path}"
                if files.get_file_from_path(address) is None:
                    files.append(File.generated(config, address, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: SitePage, config: MkDocsConfig, files: Files) -> str:
    """Links that leave docs/ lead to the copies."""
    return _lead_to_copies(f"docs/{page.file.src_uri}", markdown)


def _as_page(source: str, text: str) -> str:
    """A file of the root as it would be in docs/."""

    def moved(link: re.Match[str]) -> str:
        target = link[1]
        if "://" in target or target.startswith("#"):
            return link[0]
        path = target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
        return link[0].replace(f"({target}", f"({path}")

    return LINK.sub(moved, text)


def _lead_to_copies(path: str, text: str) -> str:
    def moved(link: re.Match[str]) -> str:
        target, hash_, anchor = link[1].partition("#")
        found = resolve(path, target) if target and "://" not in target else None
        if found in COPIED:
            found = f"docs/{COPIED[found]}"
        elif found and _travels(found):
            found = f"docs/{FILES}/{found}"
        else:
            return link[0]
        return link[0].replace(f"({link[1]}", f"({posixpath.relpath(found, posixpath.dirname(path))}{hash_}{anchor}")

    return LINK.sub(moved, text)


def _travels(path: str) -> bool:
    return not path.startswith("docs/") and path not in COPIED
