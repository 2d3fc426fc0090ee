"""What JSON does not allow is refused in words, where Python's own reader would take it."""

import pytest

from blip3o_grpo.configs.strict_json import parse_json


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN is no number in JSON"),
        ('{"a": -Infinity}', "-Infinity is no number in JSON"),
        ('{"a": 1e999}', "1e999 is more than a number can be"),
        ("[-1.5e400]", "-1.5e400 is more than a number can be"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ('{"b": {"a": 1, "a": 1}}', "'a' appears twice"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ', "not valid JSON"),
        ("", "not valid JSON"),
        ("1" * 5000, "^1{40} is more than a number can be here"),
        ('{"a": -' + "9" * 400 + "}", "is more than a number can be here"),
    ],
)
def test_refused(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "ü🙂"]}', {"a": [1, 2.5, None, True, "ü🙂"]}),
        ("1e308", 1e308),
        ("9" * 300, 10**300 - 1),
        ("1e-999", 0.0),
        ("-0.0", -0.0),
        ('"\\ud83d\\ude42"', "🙂"),
    ],
)
def test_accepted(text, value):
    assert parse_json(text) == value
