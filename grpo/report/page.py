"""What the pages of all reports have in common: templates, the viewer's script, the JSON beside them, how to repeat."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.atomic import write_atomically
from blip3o_grpo.evaluation.statistics import Estimate
from blip3o_grpo.run.environment import PROGRAM, Start
from blip3o_grpo.study.results import write_json

HERE = Path(__file__).parent
KIND = "blip3o-grpo report"
"""Marks the JSON files that a report may replace."""


def write_page(template: str, folder: Path, values: Mapping[str, Any], numbers: Mapping[str, Any], out: Path) -> Path:
    """Write a page and, beside it, its numbers as JSON; returns the page's path.

    Args:
        template: its file's name, in `folder` or here.
        values: what it shows.
        numbers: of the page, for programs.
        out: HTML file; the JSON file bears the same name.

    Raises:
        ConfigError: `out` is no .html file, or the JSON's place is taken by something else.
    """
    check_page(out)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (HERE / "viewer.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(values, script=script, script_hash=f"sha256-{digest}")
    write_atomically(out, page)
    write_json(out.with_suffix(".json"), {"kind": KIND, **numbers})
    return out


def check_page(out: Path) -> None:
    """Refuse a page that could not be written, before the work whose result it is to show.

    Raises:
        ConfigError: `out` is no .html file, or the JSON's place is taken by something else.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: a report is written as an .html file")
    beside = out.with_suffix(".json")
    if beside.exists() and not _is_ours(beside):
        raise ConfigError(
            f"--out {out}: the page's numbers go to {beside.name}, and that is something else; give another name"
        )


def _is_ours(file: Path) -> bool:
    try:
        return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        return False


def estimate_numbers(found: Estimate | None) -> dict[str, float | int | None] | None:
    """A mean with its interval (null: none) and number of prompts."""
    return found and {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def command_line(*words: str | Path) -> str:
    """A command of ours as a shell takes it."""
    return shlex.join([PROGRAM, *map(str, words)])


def checkout_line(starts: Sequence[Start]) -> str | None:
    """How to get the code of the newest start, where its commit is known."""
    code = starts[-1]["code"] if starts else None
    return f"git checkout {shlex.quote(code['commit'])}" if code else None


def describe_starts(starts: Sequence[Start]) -> list[dict[str, Any]]:
    """Each process that worked on the folder, in words; of the versions those that the one before did not have."""
    described, known = [], {}
    for start in starts:
        machine, code, versions = start["machine"], start["code"], start["versions"]
        memory = f"{machine['cores']} cores, {machine['memory_gb']:g} GiB memory"
        gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gb']:g} GiB)" for gpu in machine["gpus"]) or "no GPU"
        described.append(
            {
                "started": start["started"].replace("T", " ").replace("+00:00", " UTC"),
                "step": start["step"],
                "command": start["command"],
                "folder": start["folder"],
                "machine": f"{memory}, {gpus}; {machine['system']}",
                "code": _describe_code(code),
                "changed": {name: version for name, version in versions.items() if known.get(name) != version},
            }
        )
        known = versions
    return described


def _describe_code(code: Mapping[str, Any] | None) -> str:
    if code is None:
        return "not from a checkout, or its commit could not be told"
    changed = code["changed_files"]
    if changed is None:
        return f"commit {code['commit']}, installed by pip"
    state = "nothing changed" if not changed else f"{changed} tracked file{'s' * (changed > 1)} changed since"
    return f"commit {code['commit']}, {state}"
