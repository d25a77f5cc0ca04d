from hypothesis import given
from hypothesis import strategies as st

from serve.rates import TokenBucket


def test_as_many_as_a_minute_allows_may_come_at_once_and_then_they_come_evenly():
    bucket = TokenBucket(6, now=100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [0.0] * 6
    assert bucket.take(100.0) == 10.0
    assert bucket.take(104.0) == 6.0
    assert bucket.take(110.0) == 0.0
    assert bucket.take(110.0) == 10.0


def test_a_bucket_holds_no_more_than_a_minutes_worth():
    bucket = TokenBucket(2, now=0.0)
    assert [bucket.take(1e6) for _ in range(3)] == [0.0, 0.0, 30.0]


def test_a_clock_that_goes_back_gives_nothing():
    bucket = TokenBucket(1, now=50.0)
    assert bucket.take(50.0) == 0.0
    assert bucket.take(10.0) == 60.0 and bucket.take(50.0) == 60.0


@given(st.integers(1, 1000), st.lists(st.floats(0, 100, allow_nan=False), max_size=200))
def test_who_waits_as_long_as_was_said_is_let_through_and_nobody_gets_more_than_the_rate(per_minute, pauses):
    now = 0.0
    bucket = TokenBucket(per_minute, now)
    for allowed, pause in enumerate(pauses, start=1):
        now += pause
        if wait := bucket.take(now):
            now += wait
            assert bucket.take(now) == 0.0
        assert allowed <= per_minute + now * per_minute / 60 + 1e-3
