"""A column's value is the official number, by hand; options and data files of suites are told in one line."""

import pytest

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.benchmarks import (
    ALL,
    Column,
    check_suite_options,
    decode,
    digest,
    mean_column,
    pooled_column,
    read_data,
)


def test_a_pooled_share_is_the_mean_of_what_prompts_contribute():
    """(3 + 0 + 1) of (4 + 1 + 5): 0.4. The mean whole is 10/3, so the first contributes .4 + (3 - 1.6) * .3 = .82."""
    column = pooled_column("entity", "Entity", {"a": (3, 4), "b": (0, 1), "c": (1, 5)})
    assert column.value == pytest.approx(0.4, abs=1e-12)
    assert column.strata[ALL] == pytest.approx({"a": 0.82, "b": 0.28, "c": 0.1})
    assert (column.name, column.title, column.weights) == ("entity", "Entity", {ALL: 1.0})


def test_with_equal_wholes_prompts_contribute_their_own_shares():
    assert pooled_column("x", "X", {"a": (1, 4), "b": (3, 4)}).strata[ALL] == pytest.approx({"a": 0.25, "b": 0.75})


def test_a_weighted_column_weighs_the_means_of_its_strata():
    column = Column("overall", "Overall", {"one": {"a": 1.0, "b": 0.0}, "two": {"c": 0.25}}, {"one": 0.7, "two": 0.3})
    assert column.value == pytest.approx(0.7 * 0.5 + 0.3 * 0.25)
    assert mean_column("m", "M", {"a": 1.0, "b": 0.5}).value == 0.75


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"skip_first": "true"}, "suite 's': unknown option 'skip_first'; did you mean 'skip_first_row'?"),
        ({"zz": "1"}, "unknown option 'zz'; it takes: skip_first_row, language"),
        ({"skip_first_row": "yes"}, "option skip_first_row is 'yes'; it must be true or false"),
    ],
)
def test_options_of_a_suite_are_checked(given, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        check_suite_options("s", given, {"skip_first_row": False, "language": "en"})


def test_options_of_a_suite_have_defaults():
    known = {"skip_first_row": False, "language": "en"}
    assert check_suite_options("s", {}, known) == known
    given = {"skip_first_row": "True", "language": "zh"}
    assert check_suite_options("s", given, known) == {"skip_first_row": True, "language": "zh"}
    with pytest.raises(ConfigError, match="unknown option 'a'; it takes: none"):
        check_suite_options("s", {"a": "1"}, {})


def test_data_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.csv: no such file; --data names a table"):
        read_data(tmp_path / "nowhere.csv", "a table")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_data(tmp_path, "a table")
    assert decode(b"\xef\xbb\xbfa", tmp_path) == "a"
    with pytest.raises(ConfigError, match=":2: not valid UTF-8 .byte 0xff."):
        decode(b"a\n\xff", tmp_path)
    assert digest(b"a", b"b") != digest(b"ab") != digest(b"b", b"a")
