"""One normaliser of text: what a reader takes for the same text becomes the same string.

- canonical composition (NFC): `E` with a combining acute is `É`;
- quotation marks and primes become `"` and `'`, dashes and minus signs `-`, an ellipsis its dots;
- fullwidth, halfwidth and small forms become the plain ones, and so do the Latin ligatures (`ﬁ`), which are pictures
  of two letters;
- characters without width (joiners, soft hyphens, direction and variation marks) are dropped.

Text in ASCII stays as it is. Compatibility composition (NFKC) is left out on purpose: it would make `mc²` the same as
`mc2` and `½` the same as `1/2`, which look different.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial

_SAME = {
    '"': "\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\u300c\u300d\u300e\u300f\u301d\u301e\u301f\u02ba\u02ee",
    "'": "\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02b9\u02bb\u02bc\u00b4",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u02d7",
    "..": "\u2025",
    "...": "\u2026\u22ef",
    "\u03c3": "\u03c2",  # the final sigma differs from the other by place only
}
_PLAIN = str.maketrans({variant: plain for plain, variants in _SAME.items() for variant in variants})
_FORMS = re.compile("[\uff01-\uffef\ufe50-\ufe6b\ufb00-\ufb06]+")
"""Fullwidth and halfwidth forms, small forms, Latin ligatures."""
_WITHOUT_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0000-\U000e0fff]"
)
_UNSPACED = "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts without spaces between words: ideographs and kana."""
_WORDS = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
_composed = partial(unicodedata.normalize, "NFC")


def folded(text: str) -> str:
    """The text with every spelling of the same character made one; case and white space stay."""
    plain = _FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms[0]), _WITHOUT_WIDTH.sub("", text))
    return _composed(plain).translate(_PLAIN)


def words(text: str) -> list[str]:
    """Lower-case words of the text, folded.

    A word ends at white space of any kind. Chinese and Japanese are written without: each character is a word.
    """
    return _WORDS.findall(folded(text.lower()))


def letters(text: str) -> str:
    """What the scores compare: the folded text in lower case without any white space."""
    # Composed once more: an accent after a space meets a letter now.
    return _composed("".join(words(text)))
