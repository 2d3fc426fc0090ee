"""Captions show their letters, whatever the script, or say which ones they are."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from blip3o_grpo.evaluation import lettering
from blip3o_grpo.evaluation.lettering import OWN, Lettering, font_of, runs


def drawn(text):
    picture = Image.new("L", (200, 30), "white")
    Lettering(15).draw(ImageDraw.Draw(picture), (2, 2), text, "black")
    return np.asarray(picture)


@pytest.mark.parametrize("letter", "ÉßŁЖЯΩ…“—€")
def test_common_letters_have_a_font_everywhere(letter):
    assert font_of(letter) == OWN
    assert (drawn(letter) != drawn("\N{WHITE SQUARE}")).any()


def test_letters_without_a_font_are_named(monkeypatch):
    monkeypatch.setattr(lettering, "_others", lambda: ())
    font_of.cache_clear()
    assert runs("a出b") == [(OWN, "aU+51FAb")]
    font_of.cache_clear()


def test_another_font_is_taken_for_what_ours_lacks(monkeypatch):
    other = OWN.with_name("STIXGeneral.ttf")
    letter = next(chr(code) for code in range(0x1D400, 0x1D500) if lettering._characters(other).get_char_index(code)
                  and not lettering._characters(OWN).get_char_index(code))  # fmt: skip
    monkeypatch.setattr(lettering, "_others", lambda: (other,))
    font_of.cache_clear()
    assert runs(f"ab{letter}c") == [(OWN, "ab"), (other, letter), (OWN, "c")]
    assert Lettering(15).width(f"ab{letter}c") > Lettering(15).width("abc")
    font_of.cache_clear()
