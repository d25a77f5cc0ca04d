"""Early stopping."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.stopping import Stopping


def after(losses, patience=2, threshold=0.0):
    return reduce(lambda state, pair: state.after(*pair), enumerate(losses, 1), Stopping(patience, threshold))


def test_patience_ends_after_that_many_validations_without_improvement():
    assert not after([3, 2, 2.5]).exhausted
    assert after([3, 2, 2.5, 2.1]).exhausted


def test_an_improvement_resets_the_patience():
    assert not after([3, 2, 2.5, 1.9, 2.0]).exhausted


def test_a_lead_below_the_threshold_is_kept_as_best_but_is_no_improvement():
    state = after([3.0, 2.99, 2.98], threshold=0.05)
    assert (state.best_step, state.best_loss) == (3, 2.98)
    assert state.exhausted


def test_no_number_is_never_the_best():
    assert after([3.0, float("nan")]).best_step == 1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_the_best_is_the_first_lowest(losses):
    state = after(losses, patience=1000)
    assert state.best_loss == min(losses)
    assert state.best_step == losses.index(min(losses)) + 1
