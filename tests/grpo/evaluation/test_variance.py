"""The variance decomposition finds the components it was given, and adds up by hand."""

import numpy as np
import pytest

from blip3o_grpo.evaluation.variance import spread_shares


def test_components_of_simulated_rewards_are_recovered():
    rng = np.random.default_rng(0)
    tables = [rng.normal(0, 2.0, (6, 1)) + rng.normal(0, 1.0, (1, 5)) + rng.normal(0, 0.5, (6, 5)) for _ in range(3000)]
    spread = spread_shares(tables)
    assert spread.tokens == pytest.approx(4.0, rel=0.05)
    assert spread.noise == pytest.approx(1.0, rel=0.1)
    assert spread.interaction == pytest.approx(0.25, rel=0.05)
    assert sum(spread.shares().values()) == pytest.approx(1.0)


def test_pure_cases():
    only_tokens = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert spread_shares([only_tokens]).shares() == {"tokens": 1.0, "noise": 0.0, "interaction": 0.0}
    assert spread_shares([only_tokens.T]).shares() == {"tokens": 0.0, "noise": 1.0, "interaction": 0.0}
    assert spread_shares([np.ones((3, 3))]).shares() == {"tokens": 0.0, "noise": 0.0, "interaction": 0.0}


def test_a_table_by_hand():
    # rows 1 and 3, columns 1.5 and 2.5, rest +-0.5: MS_rest = 1, tokens = 2 - 1/2, noise = 0.5 - 1/2
    spread = spread_shares([np.array([[1.0, 1.0], [2.0, 4.0]])])
    assert (spread.tokens, spread.noise, spread.interaction) == pytest.approx((1.5, 0.0, 1.0))


def test_estimates_below_zero_count_as_none():
    """Rows and columns agree better than chance allows: 0 - 1/2 each."""
    spread = spread_shares([np.array([[0.0, 1.0], [1.0, 0.0]])])
    assert (spread.tokens, spread.noise, spread.interaction) == pytest.approx((0.0, 0.0, 1.0))


def test_prompts_are_averaged_and_tables_may_be_of_any_shape():
    narrow = np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])  # variance 4 between three token sequences
    wide = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])  # variance 1 between three noises
    spread = spread_shares([narrow, wide])
    assert (spread.tokens, spread.noise, spread.interaction) == pytest.approx((2.0, 0.5, 0.0))
    mixed = spread_shares([np.array([[1.0, 1.0, 1.0], [2.0, 4.0, 6.0]])])  # rest: -1 0 1 and 1 0 -1, so MS_rest = 2
    assert (mixed.tokens, mixed.noise, mixed.interaction) == pytest.approx((4.5 - 2 / 3, 1 - 2 / 2, 2.0))


def test_shares_have_intervals_over_prompts():
    tables = [np.array([[0.0, 0.0], [size, size]]) for size in (1.0, 2.0, 3.0, 4.0)]
    only_tokens = spread_shares(tables).estimates()["tokens"]
    assert (only_tokens.mean, only_tokens.low, only_tokens.high, only_tokens.n) == (1, 1, 1, 4)
    mixed = spread_shares([*tables, *(table.T for table in tables)]).estimates()
    assert mixed["tokens"].mean == pytest.approx(0.5) and mixed["interaction"].mean == 0
    assert 0 <= mixed["noise"].low < 0.3 and 0.7 < mixed["noise"].high <= 1


def test_components_of_prompts_take_no_part_in_comparing_and_showing():
    table = np.array([[1.0, 1.0], [2.0, 4.0]])
    assert spread_shares([table]) == spread_shares([table, table])
    assert "by_prompt" not in repr(spread_shares([table]))
