"""Corrections of families of comparisons."""

import pytest

from blip3o_grpo.evaluation.multiple_comparisons import correct


def test_corrections_of_known_families():
    assert correct([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as R's p.adjust
    assert correct([0.01, 0.04, 0.03, 0.005], "benjamini_hochberg") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert correct([0.5, 0.9], "holm") == pytest.approx([1.0, 1.0])
    assert correct([0.9, 0.8, 0.7], "holm") == [1.0, 1.0, 1.0]  # 3 x 0.7 is no probability
    assert correct([0.02, 0.5, 0.02], "holm") == pytest.approx([0.06, 0.5, 0.06])  # equal ones stay equal
    assert correct([], "holm") == [] == correct([], "benjamini_hochberg")
