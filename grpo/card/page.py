"""A card as one HTML file with its numbers as JSON beside it, as all reports are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blip3o_grpo.card.card import Card
from blip3o_grpo.card.model_card import repeat_command
from blip3o_grpo.card.plan import HELDOUT, REWORDED
from blip3o_grpo.card.verdicts import MEANINGS, Row, summary
from blip3o_grpo.report.page import checkout_line, command_line, describe_starts, write_page
from blip3o_grpo.report.pictures import MAX_IMAGES, MAX_PROMPTS, Album, heldout_pictures
from blip3o_grpo.report.reading import Problems, read_starts
from blip3o_grpo.run.files import EVALUATION_PICTURES
from blip3o_grpo.run.folder import RunFolder

PICTURES = ("card-start", "card-trained")
"""Names under which pictures of the two policies lie in the run's `evaluations`."""
CLASSES = {"better": "up", "not worse": "same", "worse": "down", "cannot tell": "same"}
"""How the page colours a verdict."""


def write_card(card: Card, out: Path) -> Path:
    """Write the page and the JSON of a card; returns the page's path.

    Raises:
        ConfigError: `out` is no .html file, or the JSON's place is taken by something else.
        StorageError: the disk is full, for example.
    """
    return write_page("card.html.jinja", Path(__file__).parent, gather(card, out), card.to_dict(), out)


def gather(card: Card, out: Path) -> dict[str, Any]:
    """What the page `out` shows, by the names that the template uses."""
    folder, problems = RunFolder(card.run), Problems()
    sides = [
        problems.read_lines(folder.evaluations / f"{name}-images" / "index.jsonl", EVALUATION_PICTURES, "prompt")
        for name in PICTURES
    ]
    album = Album(sum(min(len(line["images"]), MAX_IMAGES) for side in sides for line in side[:MAX_PROMPTS]))
    sets: dict[str, list[Row]] = {}
    for row in card.rows:
        title = f"{row.prompts} prompts" if row.prompts in (HELDOUT, REWORDED) else row.prompts
        sets.setdefault(title, []).append(row)
    starts = read_starts(folder.environment, problems)
    commands = [
        checkout_line(starts),
        command_line("train", folder.config, f"run_dir={folder.path}-again"),
        repeat_command(card, card.run),
        command_line("card", "--verify", out.absolute().with_suffix(".json")),
    ]
    return {
        "name": folder.path.name,
        "summary": summary(card.rows),
        "worse": [row.name for row in card.worse],
        "facts": [
            ("starting policy", card.start),
            ("steps", str(card.steps)),
            ("prompts", Path(card.heldout).name),
            ("images per prompt", str(card.images_per_prompt)),
        ],
        "sets": sets,
        "classes": CLASSES,
        "meanings": MEANINGS,
        "left_out": card.left_out,
        "problems": problems.sentences,
        "pairs": heldout_pictures(album, folder, sides[0], PICTURES[1], sides[1], PICTURES[0]),
        "commands": [line for line in commands if line],
        "starts": describe_starts(starts),
        "versions": card.versions,
    }
