"""A card against the same measurement again: what is the same, what may differ, and what may not."""

from dataclasses import replace

import pytest

from blip3o_grpo.card import verify
from blip3o_grpo.card.page import write_card
from blip3o_grpo.card.verify import compare_cards, verify_card
from blip3o_grpo.configs import ConfigError
from tests.grpo.card.rows import row


def statuses(card, again):
    return {check.name: check.status for check in compare_cards(card, again)}


def test_each_row_is_compared(card):
    assert set(statuses(card, card).values()) == {"same"}
    ocr, guard, *rest = card.rows
    noise = replace(ocr, after=replace(ocr.after, mean=ocr.after.mean + 5e-5))
    elsewhere = row("heldout", "guard", -0.12)
    found = statuses(card, replace(card, rows=[noise, elsewhere, *rest]))
    assert found["heldout/ocr"] == "same" and found["heldout/guard"] == "within its interval"
    better = row("heldout", "guard", -0.02)  # not worse now
    outside = row("heldout", "ocr", 0.3, weight=2.0)  # better, and far from what the card says
    found = statuses(card, replace(card, rows=[outside, better, *rest[:-1], row("reworded", "new", 0.0)]))
    assert found["heldout/ocr"] == found["heldout/guard"] == "differs"
    assert found["reworded/ocr"] == found["reworded/new"] == "differs"  # one is gone, one is new
    assert found["heldout/image/diversity"] == "same"


def test_an_interval_or_a_margin_that_was_not_measured_is_found(card):
    ocr = card.rows[0]
    for changed in (
        replace(ocr, change=replace(ocr.change, low=0.19)),
        replace(ocr, change=replace(ocr.change, n=17)),
        replace(ocr, before=replace(ocr.before, high=None)),
    ):
        assert statuses(replace(card, rows=[changed]), card)["heldout/ocr"] == "within its interval"
    assert statuses(replace(card, rows=[replace(ocr, margin=0.2)]), card)["heldout/ocr"] == "differs"


def test_a_row_without_an_interval_must_be_the_same(card):
    few = replace(card.rows[0].change, low=None, high=None)
    alone = replace(card, rows=[replace(card.rows[0], change=few, verdict="cannot tell")])
    other = replace(alone, rows=[replace(alone.rows[0], after=replace(alone.rows[0].after, mean=0.6))])
    assert statuses(alone, alone) == {"heldout/ocr": "same"} and statuses(alone, other) == {"heldout/ocr": "differs"}


def test_a_card_of_other_weights_is_refused_before_anything_is_measured(card, tmp_path, monkeypatch):
    page = write_card(card, tmp_path / "card.html")
    plan = type("Plan", (), {"start": tmp_path / "signs" / "policy", "trained": tmp_path / "signs" / "policy"})
    asked = []
    monkeypatch.setattr(verify, "plan_card", lambda *args: asked.append(args) or plan)
    monkeypatch.setattr(verify, "find_card", lambda *_: pytest.fail("measured"))
    with pytest.raises(ConfigError, match="has other weights than the policy that this card is about"):
        verify_card(page)
    assert asked == [(card.run, card.request)]
    digest = verify.weights_digest(plan.start)
    page = write_card(replace(card, policies={"start": digest, "trained": digest}), tmp_path / "card.html")
    monkeypatch.setattr(verify, "find_card", lambda *_: card)
    assert {check.status for check in verify_card(page, "elsewhere")} == {"same"}
    assert asked[-1] == ("elsewhere", card.request)
