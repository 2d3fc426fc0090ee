"""Orders in which lines may be read, worked out by hand from pictures of boxes."""

from __future__ import annotations

import random

import pytest

from blip3o_grpo.rewards.ocr.blocks import TextLine, reading_orders


def line(text: str, x: float, y: float, width: float = 20, height: float = 10) -> TextLine:
    return TextLine(text, 1.0, (x, y, x + width, y + height))


def reading_order(lines: list[TextLine]) -> list[TextLine]:
    """Row by row."""
    return [lines[index] for index in reading_orders(lines)[0][0]]


def whole_and_paths(lines: list[TextLine]) -> tuple[list[str], list[str]]:
    whole, paths = reading_orders(lines)
    return tuple(["".join(lines[index].text for index in order) for order in orders] for orders in (whole, paths))


def test_lines_are_sorted_row_by_row_from_the_left():
    lines = [line("D", 30, 41), line("B", 30, 3), line("C", 0, 40), line("A", 0, 0)]
    assert [item.text for item in reading_order(lines)] == list("ABCD")
    assert reading_order([]) == []


@pytest.mark.parametrize(
    ("second", "order"),
    [
        (line("B", -30, 4), "BA"),  # overlaps by 6 of 10: same row
        (line("B", -30, 5), "AB"),  # by 5 of 10: next row
        (line("B", -30, 4, height=2), "BA"),  # by all of the smaller one
        (line("B", -30, -9, height=29), "BA"),  # the smaller one is the other
        (line("B", -30, -6), "BA"),
        (line("B", -30, 9, height=2), "AB"),
        (line("B", 30, 0), "AB"),
    ],
)
def test_a_row_is_shared_by_more_than_half_of_the_smaller_height(second, order):
    assert "".join(item.text for item in reading_order([line("A", 0, 0), second])) == order


def test_boxes_of_a_row_that_overlap_are_sorted_by_their_left_edges():
    lines = [line("B", 10, 0, width=20), line("A", 0, 0, width=100), line("C", 20, 0, width=5)]
    assert "".join(item.text for item in reading_order(lines)) == "ABC"


def test_a_row_is_measured_at_its_first_line():
    stairs = [line("C", 0, 8), line("B", 20, 4), line("A", 40, 0)]  # C shares a row with B, but not with A
    assert "".join(item.text for item in reading_order(stairs)) == "BAC"


def test_the_order_of_equal_places_does_not_depend_on_how_they_came():
    lines = [line("B", 0, 0), line("A", 0, 0), line("C", 0, 0, height=0), line("D", 0, 0, height=0)]
    assert {"".join(item.text for item in reading_order(random.Random(n).sample(lines, 4))) for n in range(20)} == {
        "CDAB"
    }


def test_one_line_or_one_column_has_one_order():
    assert whole_and_paths([]) == ([""], [])
    assert whole_and_paths([line("A", 0, 0)]) == (["A"], ["A"])
    assert whole_and_paths([line("C", 2, 50), line("A", 0, 0), line("B", 5, 15)]) == (["ABC"], ["ABC"])


def test_panels_side_by_side_are_read_one_after_the_other():
    lines = [line("A", 0, 0), line("C", 40, 0), line("B", 0, 15), line("D", 40, 15)]
    assert whole_and_paths(lines) == (["ACBD", "ABCD"], ["AB", "CD"])


def test_three_columns_of_different_lengths():
    lines = [
        line("A", 0, 0),
        line("B", 0, 15),
        line("C", 40, 7),
        line("D", 80, 0),
        line("E", 80, 15),
        line("F", 80, 30),
    ]
    whole, paths = whole_and_paths(lines)
    assert "ABCDEF" in whole
    assert paths == ["AB", "C", "DEF"]


def test_a_heading_over_two_columns_is_read_before_each():
    heading = line("H", 0, 0, width=60)
    lines = [
        heading,
        line("A", 0, 15),
        line("C", 40, 15),
        line("B", 0, 30),
        line("D", 40, 30),
        line("F", 0, 45, width=60),
    ]
    whole, paths = whole_and_paths(lines)
    assert whole == ["HACBDF", "HABCDF", "HABFCD"]
    assert paths == ["HABF", "HCDF"]


def test_a_column_with_a_gap_stays_a_column():
    lines = [line("A", 0, 0), line("C", 40, 0), line("B", 0, 200), line("D", 40, 200)]
    assert "ABCD" in whole_and_paths(lines)[0]


def test_blocks_above_one_another_are_read_by_rows_and_by_columns():
    """Two rows of signs: each sign is two lines; between the rows the columns shift, so no chain goes through."""
    lines = [line("A", 0, 0), line("B", 0, 12), line("C", 60, 0), line("D", 60, 12)]
    lines += [line("E", 30, 100), line("F", 30, 112), line("G", 90, 100), line("H", 90, 112)]
    whole, _ = whole_and_paths(lines)
    assert {"ACBDEGFH", "ABCDEFGH", "ABEFCDGH"} <= set(whole)


def test_boxes_close_together_in_a_row_may_be_words_of_one_line():
    """A box per word; the gap between the columns is wider than a letter is high."""
    lines = [line("A", 0, 0), line("B", 25, 0), line("E", 80, 0), line("F", 105, 0)]
    lines += [line("C", 0, 15), line("D", 25, 15), line("G", 80, 15), line("H", 105, 15)]
    whole, _ = whole_and_paths(lines)
    assert set(whole) == {"ABEFCDGH", "ACBDEGFH", "ABCDEFGH"}


@pytest.mark.parametrize(("gap", "joined"), [(10, True), (10.5, False)])
@pytest.mark.parametrize(("left", "right"), [(10, 16), (16, 10)])
@pytest.mark.parametrize("y", [0, 300])
def test_words_of_one_line_are_no_further_apart_than_the_lower_one_is_high(gap, joined, left, right, y):
    lines = [line("A", 0, y, height=left), line("B", 20 + gap, y, height=right), line("E", 200, y)]
    lines += [line("C", 0, y + 20, height=left), line("D", 20 + gap, y + 20, height=right), line("F", 200, y + 20)]
    assert ("ABCDEF" in whole_and_paths(lines)[0]) is joined


def test_orders_do_not_depend_on_where_in_the_picture_and_how_large_the_lines_are():
    generator = random.Random(4)
    for _ in range(30):
        places = [(c, generator.randrange(60), generator.randrange(60), generator.randrange(1, 40)) for c in "ABCDEF"]
        here = whole_and_paths([line(c, x, y, width) for c, x, y, width in places])
        assert whole_and_paths([line(c, x + 900, y + 500, width) for c, x, y, width in places]) == here
        larger = [line(c, 4 * x, 4 * y, 4 * width, height=40) for c, x, y, width in places]
        assert whole_and_paths(larger) == here


def test_boxes_without_height_are_not_below_one_another_in_a_circle():
    flat = [line("A", 0, 5, height=0), line("B", 0, 5, height=0)]
    assert whole_and_paths(flat) == (["AB"], ["A", "B"])
    assert whole_and_paths([line("A", 0, 0), line("B", 0, 20, height=0)]) == (["AB"], ["AB"])


@pytest.mark.parametrize(("shift", "below"), [(9, True), (10, False), (-9, True), (-10, False)])
def test_a_line_stands_below_another_if_they_overlap_by_more_than_half_of_the_smaller_width(shift, below):
    lines = [line("A", 0, 0), line("B", shift, 15), line("C", shift, 30, width=60)]
    _, paths = whole_and_paths(lines[:2])
    assert (paths == ["AB"]) is below
    assert whole_and_paths([line("A", 0, 0), line("B", 0, 15, width=9)])[1] == ["AB"]


def test_tight_lines_that_overlap_are_still_below_one_another():
    assert whole_and_paths([line("A", 0, 0), line("B", 0, 6)])[1] == ["AB"]
    assert whole_and_paths([line("A", 0, 0), line("B", 0, 3)])[1] == ["AB"]  # they overlap more from side to side
    assert whole_and_paths([line("A", 0, 0), line("B", 14, 4)])[1] == ["A", "B", "AB"]  # one row: 6 of 10, 6 of 20
    assert whole_and_paths([line("A", 0, 0), line("B", 8, 4)])[1] == ["A", "B", "AB"]  # 6 of 10 either way
    assert whole_and_paths([line("A", 0, 0), line("B", 7, 4)])[1] == ["AB"]


def test_lines_of_tilted_text_stand_below_one_another():
    """Upright boxes around long lines that fall to the right: they share most of their height, and the next begins
    further left."""
    lines = [line("A", 6, 0, 126, 32), line("B", 3, 15, 126, 32), line("C", 0, 30, 126, 32)]
    assert whole_and_paths(lines) == (["ABC"], ["ABC"])
    lines = [line("A", 0, 0, 126, 32), line("B", 3, 15, 126, 32), line("C", 6, 30, 126, 32)]
    assert whole_and_paths(lines) == (["ABC"], ["ABC"])


def test_clutter_has_a_bounded_number_of_paths():
    """Rows of two over one wide line, again and again: the number of ways down doubles each time."""
    lines = []
    for row in range(10):
        lines += [line("W", 0, 30 * row, width=60), line("L", 0, 30 * row + 15), line("R", 40, 30 * row + 15)]
    whole, paths = reading_orders(lines)
    assert len(whole) <= 5 and len(paths) == 50
    assert all(sorted(order) == list(range(30)) for order in whole)


def test_orders_do_not_depend_on_how_the_lines_came():
    generator = random.Random(3)
    for _ in range(50):
        lines = [
            line(c, generator.randrange(60), generator.randrange(60), generator.randrange(1, 40)) for c in "ABCDEFG"
        ]
        assert whole_and_paths(lines) == whole_and_paths(generator.sample(lines, len(lines)))
