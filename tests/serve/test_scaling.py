"""Engines come as requests need them, and go when nobody asks: down to none where the recipe says so.

Each candidate has engines of its own in what runs here; all that scales is the same for engines that hold them all.
"""

import concurrent.futures
import threading
import time
from functools import partial

import httpx
import pytest

from pipelines.recipe_file import load_recipe
from serve.app import ANSWER_S, replicas
from tests.serve.test_app import HELLO, free_port, health_of, promote
from tests.waiting import until


def test_as_many_as_least_and_most_say_are_never_scaled(recipe_file):
    for count in (1, 3):
        served = load_recipe(recipe_file(serve={"min_replicas": count, "max_replicas": count})).serve
        assert replicas(served) == {"num_replicas": count, "graceful_shutdown_timeout_s": 10}


def test_an_engine_that_goes_has_time_for_its_answers(recipe_file):
    scaled = replicas(load_recipe(recipe_file(serve={"max_replicas": 3, "idle_after_s": 30})).serve)
    assert scaled["graceful_shutdown_timeout_s"] == ANSWER_S
    assert scaled["autoscaling_config"] | {"upscale_delay_s": 0} == {
        "min_replicas": 1,
        "initial_replicas": 1,
        "max_replicas": 3,
        "target_ongoing_requests": 16,
        "upscale_delay_s": 0,
        "downscale_delay_s": 30,
    }


def test_more_at_least_than_at_most_is_refused(recipe_file):
    from cluster.errors import UserError

    with pytest.raises(UserError, match="min_replicas 2 is above max_replicas 1"):
        load_recipe(recipe_file(serve={"min_replicas": 2}))


@pytest.mark.cluster
def test_each_candidates_engines_come_with_its_requests_and_sleep_until_the_next(
    ray_cluster, tmp_path, tiny_model, tiny_adapter, other_adapter
):
    import yaml

    from serve.app import start
    from serve.client import Client
    from serve.listening import Address

    content = {
        "name": "scaled",
        "dataset": {"source": "none.jsonl"},
        "models": [{"base": str(tiny_model)}],
        "train": {"dtype": "float32"},
        "serve": {
            "max_new_tokens": 1000,
            "max_batch_size": 1,
            "min_replicas": 0,
            "max_replicas": 2,
            "idle_after_s": 1,
            "engine_per_candidate": True,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path)
    promote(ray_cluster, recipe, tiny_model, tiny_adapter)
    server = start(recipe, ray_cluster, Address(port=free_port()))
    try:
        with Client(server.url) as client, concurrent.futures.ThreadPoolExecutor(7) as pool:
            health = partial(health_of, client)

            def ask(tokens):
                body = {"messages": HELLO, "model": "base", "max_tokens": tokens}
                return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=240)

            many, one = threading.Event(), threading.Event()

            def go_on(done):
                replies = []
                while not done.is_set():
                    replies.append(ask(200).status_code)
                return replies

            def engines():
                """Arm -> how many engines are there; None while nobody says."""
                own = health("engines")
                return own and {arm: one["replicas"] for arm, one in own.items()}

            until(lambda: engines() is not None, "the first engines")
            asked = [pool.submit(go_on, many) for _ in range(5)] + [pool.submit(go_on, one)]
            try:
                # Seldom: each look counts as a request for a moment, and puts the sleep off if it is seen.
                until(lambda: engines() == {"base": 2, "tuned": 0}, "a second engine, and the other's sleep", pause_s=3)
                many.set()
                until(lambda: engines() == {"base": 1, "tuned": 0}, "its end", pause_s=1)
            finally:
                many.set()
                one.set()
            replies = [status for each in asked for status in each.result()]
            assert replies and set(replies) == {200}, "no request may fail while engines come and go"

            until(lambda: health("status") == "asleep", "the sleep", pause_s=3)
            slept = time.monotonic()
            while time.monotonic() < slept + 4:
                found = client.health()
                assert (found["status"], found["replicas"], found["running"]) == ("asleep", 0, 0), "asking woke it"
            figures = httpx.get(f"{server.url}/metrics", timeout=30).text
            assert "sluice_engine_replicas 0.0" in figures and "sluice_engine_up 0.0" in figures
            assert 'sluice_arm_engine_replicas{arm="base"} 0.0' in figures

            # What is promoted meanwhile is what wakes.
            promote(ray_cluster, recipe, tiny_model, other_adapter, "2")
            first = pool.submit(client.chat, HELLO, model="tuned", max_tokens=8)
            until(lambda: first.done() or health("status") == "waking", "the waking")
            answer = first.result()
            until(lambda: engines() == {"base": 0, "tuned": 1}, "one engine")
            assert health("version") == "2"
            assert client.chat(HELLO, model="tuned", max_tokens=8).text == answer.text
    finally:
        server.stop()
