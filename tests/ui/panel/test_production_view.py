"""What the production page says of the service's engines."""

import pytest

from ui.panel.production_view import load_of


def health(replicas, running=0, waiting=0):
    return {"replicas": replicas, "running": running, "waiting": waiting}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"running": 2, "waiting": 1}, "2 running, 1 waiting"),
        (health(1, 2, 1), "2 running, 1 waiting"),
        (health(3, 20, 0), "3 engines, 20 running, 0 waiting"),
        # That it sleeps, or wakes, is said before it.
        (health(0, 0, 4), "0 running, 4 waiting"),
        (
            health(2, 20) | {"engines": {"base": health(0), "tuned": health(2, 20)}},
            "base: asleep; tuned: 2 engines, 20 running, 0 waiting",
        ),
        (
            health(1, 3) | {"engines": {"base": health(0, 0, 2), "tuned": health(1, 3)}},
            "base: wakes, 2 waiting; tuned: 3 running, 0 waiting",
        ),
        (
            health(1, 3) | {"engines": {"base": health(0) | {"away": True}, "tuned": health(1, 3)}},
            "base: away; tuned: 3 running, 0 waiting",
        ),
    ],
)
def test_the_load_is_told_of_all_engines_or_of_each_arms_own(said, told):
    assert load_of(said) == told
