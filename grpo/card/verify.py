"""Is a card true? The same measurement again, row by row against what the card says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from blip3o_grpo.card.card import Card, load_card, weights_digest
from blip3o_grpo.card.make import find_card
from blip3o_grpo.card.plan import plan_card
from blip3o_grpo.card.verdicts import Row
from blip3o_grpo.configs import ConfigError
from blip3o_grpo.evaluation.statistics import Estimate

TOLERANCE = 1e-4
"""What two measurements on one machine may differ by."""

Status = Literal["same", "within its interval", "differs"]


@dataclass(frozen=True)
class CardCheck:
    """One row of a card and what was found now; None: there is no such row."""

    name: str
    said: Row | None
    found: Row | None
    status: Status


def compare_cards(card: Card, again: Card) -> list[CardCheck]:
    """Every row of either card.

    `same`: means, intervals and change within `TOLERANCE`. `within its interval`: another machine drew other images,
    the change lies in the card's interval, and the verdict is the card's. All else differs.
    """
    said, found = ({row.name: row for row in one.rows} for one in (card, again))
    names = dict.fromkeys([*said, *found])
    return [
        CardCheck(name, said.get(name), found.get(name), _status(said.get(name), found.get(name))) for name in names
    ]


def _status(said: Row | None, found: Row | None) -> Status:
    if said is None or found is None or (said.verdict, said.margin) != (found.verdict, found.margin):
        return "differs"
    if all(_same(getattr(said, part), getattr(found, part)) for part in ("before", "after", "change")):
        return "same"
    low, high = said.change.low, said.change.high
    inside = low is not None and high is not None and low <= found.change.mean <= high
    return "within its interval" if inside else "differs"


def _same(first: Estimate, second: Estimate) -> bool:
    pairs = [(first.mean, second.mean), (first.low, second.low), (first.high, second.high)]
    close = all(a == b or (a is not None and b is not None and abs(a - b) <= TOLERANCE) for a, b in pairs)
    return close and first.n == second.n


def verify_card(path: Path, run: str | Path | None = None, console: Console | None = None) -> list[CardCheck]:
    """Measure again what a card tells of, with its own suites, margins and settings.

    Args:
        path: the card, its page or its JSON.
        run: folder of the run, if it has moved; default: where the card says.
        console: where progress goes; None: nowhere.

    Raises:
        ConfigError: no card, or the policies have other weights than those that it is about.
        RunFileError: what is there is no card.
        ...: as `make.find_card`.
    """
    card = load_card(path)
    plan = plan_card(run or card.run, card.request)
    for name, folder in (("start", plan.start), ("trained", plan.trained)):
        if weights_digest(folder) != card.policies[name]:
            raise ConfigError(f"{path}: {folder} has other weights than the policy that this card is about")
    return compare_cards(card, find_card(plan, console))
