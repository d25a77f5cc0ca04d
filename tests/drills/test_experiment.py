"""Two thousand users over HTTP, while the gateway and the watcher are killed; then a harmful arm, and lost units."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import httpx
import pytest
import yaml
from sqlalchemy import select

from pipelines.recipe_file import load_recipe
from pipelines.records import EventRow, ExperimentExposureRow, now
from pipelines.tracking import deployments
from serve.assignment import choose_arm
from serve.experimentation import lifecycle
from serve.experimentation.reading import standing
from serve.exposures import unit_of
from tests.serve.conftest import tiny_adapter  # noqa: F401
from tests.serve.load import kill
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.drill, pytest.mark.cluster]

USERS, AT_ONCE = 2000, 12
RATES = {"base": 0.02, "tuned": 0.07}


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory, tiny_model):
    """`recipe_of(**experiment)`: a recipe of a service with that experiment."""

    def write(**experiment):
        path = tmp_path_factory.mktemp("recipes") / "recipe.yaml"
        content = {
            "name": "tried",
            "dataset": {"source": "none.jsonl"},
            "models": [{"base": str(tiny_model)}],
            "train": {"dtype": "float32"},
            "serve": {"max_batch_size": 16, "max_queued_requests": 64},
            "experiment": {"primary": {"metric": "event.resolved"}, "planned_units": USERS} | experiment,
        }
        path.write_text(yaml.safe_dump(content))
        return load_recipe(path)

    return write


@pytest.fixture(scope="module")
def server(ray_cluster, recipe_of, tiny_model, tiny_adapter):  # noqa: F811
    from pipelines.tracking import registry
    from serve.app import start
    from serve.listening import Address
    from tests.serve.test_app import promote

    recipe = recipe_of()
    promote(ray_cluster, recipe, tiny_model, tiny_adapter)
    content = deployments.current(ray_cluster, recipe.name).content
    lineage = {"data": {"version": 0}, "reports": {"evaluate": {"key": "key"}}, "waivers": []}
    registry.register(ray_cluster.settings, recipe.name, content | lineage)
    registry.set_champion(ray_cluster.settings, recipe.name, "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    handle = start(recipe, ray_cluster, Address(port=port))
    yield handle
    handle.stop()


class Crowd:
    """Users who ask, and ask again when they are not answered; what of them was acknowledged is remembered."""

    def __init__(self, url):
        self.http = httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=AT_ONCE))
        self.arms, self.events, self.failed = {}, set(), Counter()
        self.lock = threading.Lock()

    def ask(self, user):
        """The arm that answered."""
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "user": user}
        arm = self.send("/v1/chat/completions", body).headers["x-sluice-arm"]
        assert self.arms.setdefault(user, arm) == arm, f"{user} met {self.arms[user]} and {arm}"
        return arm

    def tell(self, name, user):
        """Send an event, again and again until it is acknowledged."""
        event = {"event_id": f"{name}-{user}", "name": name, "user": user}
        self.send("/v1/events", {"events": [event]})
        with self.lock:
            self.events.add(event["event_id"])

    def send(self, path, body):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                reply = self.http.post(path, json=body)
                if reply.status_code == 200:
                    return reply
                self.failed[reply.status_code] += 1
                assert reply.status_code in (429, 500, 502, 503, 504), reply.text
            except httpx.TransportError as error:
                self.failed[type(error).__name__] += 1
            assert time.monotonic() < deadline, f"no answer for {PATIENCE_S} s: {self.failed}"
            time.sleep(0.1)

    def live(self, users, rates, name="resolved"):
        """Each asks, and so many of each arm tell what came of it."""

        def one(number):
            arm = self.ask(f"{users}-{number}")
            # Every hundred users alike: what is to be found does not hang on luck.
            if (number * 37) % 100 < round(100 * rates[arm]):
                self.tell(name, f"{users}-{number}")

        return one

    def wait_until_let_in(self, workspace, row):
        """Ask as new users until one of them is in the experiment; those before are forgotten."""
        met = select(ExperimentExposureRow.unit).where(ExperimentExposureRow.experiment_id == row.id)
        names = (f"first-{row.id}-{number}" for number in range(10**6))

        def is_in():
            self.arms.clear()
            user = next(names)
            self.ask(user)
            with workspace.session() as session:
                return unit_of(user) in session.scalars(met).all()

        until(is_in, "the first unit")

    def wait_until_met(self, user, arm):
        """Ask until the gateway has followed and `user` meets that arm."""

        def has_followed():
            self.arms.clear()
            return self.ask(user) == arm

        until(has_followed, "the gateway's following")

    def all(self, work, numbers):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, numbers))


def test_users_meet_one_arm_and_nothing_acknowledged_is_lost_while_gateway_and_watcher_die(
    server, ray_cluster, recipe_of
):
    from pipelines.tracking import registry

    row = lifecycle.start(ray_cluster, recipe_of(), "a test")
    crowd = Crowd(server.url)
    work = crowd.live("one", RATES)
    crowd.wait_until_let_in(ray_cluster, row)
    until(lambda: kill("ray::Watcher"), "the watcher's process")
    killer = threading.Timer(2.0, kill, ["ray::ServeReplica:tried:gateway"])
    killer.start()
    crowd.all(work, range(USERS))
    killer.join()
    assert crowd.failed, "nothing failed: the gateway was not killed in time"
    # All who were answered are known by the arm that they met, and each event is there once.
    with ray_cluster.session() as session:
        exposed = dict(
            session.execute(
                select(ExperimentExposureRow.unit, ExperimentExposureRow.arm).where(
                    ExperimentExposureRow.experiment_id == row.id
                )
            ).all()
        )
        events = Counter(session.scalars(select(EventRow.event_id).where(EventRow.recipe_name == "tried")))
    assert exposed == {unit_of(user): arm for user, arm in crowd.arms.items()}
    assert events == Counter(crowd.events)
    # The watcher lives again, and says what there is to see now.
    moment = now()
    until(lambda: lifecycle.latest(ray_cluster, "tried", row.id).looked_at > moment, "another look")
    assert standing(ray_cluster, "tried")["look"]["outcome"] == "better"
    lifecycle.promote(ray_cluster, "tried", "a test")
    served = deployments.current(ray_cluster, "tried")
    assert (served.action, deployments.traffic_of(served)) == ("promote", {"tuned": 1.0})
    crowd.wait_until_met(next(user for user, arm in crowd.arms.items() if arm == "base"), "tuned")
    assert registry.champion(ray_cluster.settings, "tried") == "1"


def test_a_harmful_arm_is_rolled_back_and_every_gateway_follows(server, ray_cluster, recipe_of):
    from pipelines.tracking import registry

    guard = {"metric": "event.complaint", "higher_is_better": False, "margin": 0.05}
    row = lifecycle.start(ray_cluster, recipe_of(guardrails=[guard]), "a test")
    crowd = Crowd(server.url)
    crowd.wait_until_let_in(ray_cluster, row)
    work, number = crowd.live("two", {"base": 0.02, "tuned": 0.4}, "complaint"), 0
    while lifecycle.live(ray_cluster, "tried") is not None:
        crowd.all(work, range(number, number + 50))
        number += 50
        assert number <= USERS, "the harm was not noticed"
    assert lifecycle.latest(ray_cluster, "tried", row.id).outcome == "harm"
    assert number < USERS / 2
    served = deployments.current(ray_cluster, "tried")
    assert (served.action, deployments.traffic_of(served)) == ("rollback", {"base": 1.0})
    crowd.wait_until_met(next(user for user, arm in crowd.arms.items() if arm == "tuned"), "base")
    until(lambda: registry.champion(ray_cluster.settings, "tried") is None, "the champion's end")


def test_units_that_are_lost_on_the_way_block_every_verdict(server, ray_cluster, recipe_of):
    before = deployments.traffic_of(deployments.current(ray_cluster, "tried"))
    row = lifecycle.start(ray_cluster, recipe_of(on_better="promote"), "a test")
    crowd = Crowd(server.url)
    crowd.wait_until_let_in(ray_cluster, row)
    weights = dict(lifecycle.section_of(row).weights)

    # As many of each arm: whether the ratio shows must not hang on luck.
    numbers = {
        arm: list(islice((n for n in count() if choose_arm(row.seed, unit_of(f"three-{n}"), weights) == arm), 500))
        for arm in weights
    }
    # What stands before the gateway drops a quarter of those who would meet the tuned arm.
    del numbers["tuned"][::4]
    crowd.all(crowd.live("three", RATES), sorted(numbers["base"] + numbers["tuned"]))
    seen = until(lambda: (found := standing(ray_cluster, "tried")["look"])["outcome"] == "blocked" and found, "a block")
    assert seen["sample_ratio"]["mismatch"] and "arm tuned has" in seen["sentence"]
    assert lifecycle.live(ray_cluster, "tried").id == row.id
    assert deployments.traffic_of(deployments.current(ray_cluster, "tried")) == before
    lifecycle.stop(ray_cluster, "tried", "a test", "the filter is mended first")
