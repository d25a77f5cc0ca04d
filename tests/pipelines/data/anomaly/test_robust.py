import numpy as np
import pytest

from pipelines.data.anomaly.robust import matched_z, robust_z


def test_of_normal_values_it_is_the_standard_score():
    values = np.random.default_rng(1).normal(5, 2, 20_000)
    z = robust_z(values, np.arange(20_000))
    assert z == pytest.approx((values - 5) / 2, abs=0.1)


def test_wild_values_do_not_hide_each_other():
    values = np.concatenate((np.random.default_rng(1).normal(0, 1, 90), np.full(10, 1000.0)))
    assert (robust_z(values, np.arange(100))[90:] > 500).all()


def test_equal_values_have_a_scale_all_the_same_and_none_are_at_nought():
    values = np.array([1.0] * 99 + [2.0])
    assert robust_z(values, np.arange(100), least_scale=0.1)[99] == pytest.approx(10)
    assert robust_z(np.array([np.nan, 1.0, 2.0, 3.0]), np.arange(4))[0] == 0
    assert robust_z(np.full(3, np.nan), np.arange(3)).tolist() == [0, 0, 0]


def test_a_value_that_is_usual_among_its_like_is_none_among_all():
    chance = np.random.default_rng(1)
    size = np.repeat([2, 40], 1000)
    values = np.where(size == 2, chance.normal(10, 3, 2000), chance.normal(5, 0.3, 2000))
    values[1999] = 10.0
    assert matched_z(values, size, np.arange(2000))[1999] > 10
    assert robust_z(values, np.arange(2000))[1999] < 4


def test_rows_outside_of_the_population_are_judged_by_it():
    values = np.concatenate((np.random.default_rng(1).normal(0, 1, 1000), [50.0] * 1000))
    z = matched_z(values, np.ones(2000), np.arange(1000))
    assert (z[1000:] > 30).all()
