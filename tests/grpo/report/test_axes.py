"""Axes never zoom until noise looks like an event; long curves are thinned without losing a peak."""

import numpy as np
import pytest

from blip3o_grpo.report.axes import MAX_POINTS, NATS, SCORE, Axis, limits, smoothing, thin


def test_a_score_has_its_whole_range():
    """Also a guard that moved by .001, and a score that stayed at 0."""
    for values in ([0.990, 0.991], [0.0, 0.0], [0.0, 1.0], [0.5, np.nan]):
        low, high = limits(SCORE, [np.array(values)])
        assert low <= 0 and high >= 1 and high - low < 1.1


def test_what_begins_at_zero_has_a_smallest_range():
    assert limits(NATS, [np.array([0.0, 3e-4])]) == (0.0, 0.01)
    assert limits(NATS, [np.array([0.0, 0.5])])[1] == pytest.approx(0.54)
    assert limits(Axis("a", zero=True), [np.zeros(3)]) == (0.0, 1.0)


def test_noise_fills_at_most_half_of_an_axis():
    """Of a score beyond [0, 1] whose steps differ by noise alone; less where that is small beside the value."""
    noise = np.random.default_rng(0).normal(0, 1, 200)
    for centre, sd in ((0.0, 1.0), (5.0, 1.0), (5.0, 1e-4), (-300.0, 0.1)):
        values = centre + sd * noise
        low, high = limits(SCORE, [values])
        assert high - low >= 7.5 * sd and high - low >= 0.2 * abs(centre)
        assert low < values.min() and values.max() < high


def test_an_event_is_shown_as_one():
    values = np.r_[np.full(50, 2.0), np.full(50, 9.0)] + np.random.default_rng(0).normal(0, 0.1, 100)
    low, high = limits(SCORE, [values])
    assert low < 1.9 and high > 9.1 and high - low < 9
    assert limits(SCORE, [np.array([-3.0])])[0] < -3 < limits(SCORE, [np.array([-3.0])])[1]


def test_few_steps_are_not_smoothed():
    assert [smoothing(n) for n in (0, 1, 7, 8, 36, 120)] == [1, 1, 1, 3, 3, 10]


def test_thinned_curves_keep_their_ends_and_peaks():
    x, values = np.arange(10_000.0), np.sin(np.arange(10_000) / 500)
    values[7777], values[100:140] = 5.0, np.nan
    fewer, kept = thin(x, values)
    assert len(fewer) <= MAX_POINTS and (np.diff(fewer) > 0).all()
    assert kept.max() == 5.0 and kept.min() == np.nanmin(values)
    assert thin(x[:9], values[:9])[0] is not None and len(thin(x[:9], values[:9])[0]) == 9
