"""Who meets what: the experiment that runs, what one decided, the recipe's weights; and the gateway follows."""

import asyncio
import threading

import pytest

from pipelines.recipe_file import load_recipe
from pipelines.records import ExperimentExposureRow, ExposureRow, InteractionRow
from pipelines.tracking import deployments
from serve.errors import RequestError
from serve.experimentation import lifecycle
from serve.exposures import Exposures
from serve.traffic import Running, Traffic, TrafficWatch, read_traffic

WEIGHTS = {"base": 1.0, "tuned": 1.0}
NOBODY = Traffic(1, "1", None, None)
UNITS = [f"unit-{number}" for number in range(400)]


def running(**changes):
    one = {"id": 7, "seed": "x", "weights": WEIGHTS, "control": "base", "coverage": 1.0, "paused": False} | changes
    return Traffic(1, "1", None, Running(**one))


@pytest.fixture
def exposures(workspace):
    """`exposures(...)`: as a gateway has them, with nothing remembered yet."""

    def make(holdout=0.0, weights=WEIGHTS):
        return Exposures(workspace, "small", "small:17", weights, holdout)

    return make


@pytest.fixture
def live(workspace, recipe_file):
    """`live(**design)`: an experiment that runs on a deployment."""

    def start(**design):
        deployments.append(
            workspace,
            recipe_name="small",
            action="promote",
            model_name="small",
            model_version="1",
            content={"train": {}},
            by="ada",
        )
        section = {"primary": {"metric": "event.resolved"}, "guardrails": [], "planned_units": 1000} | design
        return lifecycle.start(workspace, load_recipe(recipe_file(experiment=section)), "ada")

    return start


def test_more_coverage_brings_units_in_and_moves_none(exposures, rows):
    one = exposures()
    few = {unit: one.arm_of(unit, running(coverage=0.2)) for unit in UNITS}
    inside = {unit for unit, met in few.items() if met.experiment}
    assert 40 < len(inside) < 120
    # Both arms grow alike, and who is outside meets the control.
    assert {few[unit].arm for unit in inside} == {"base", "tuned"}
    assert {few[unit].arm for unit in set(UNITS) - inside} == {"base"}
    many = {unit: exposures().arm_of(unit, running(coverage=0.6)) for unit in UNITS}
    assert all(many[unit] == few[unit] for unit in inside)
    assert len(rows(ExperimentExposureRow)) == sum(met.experiment is not None for met in many.values()) > len(inside)
    assert rows(ExposureRow) == []


@pytest.mark.parametrize("holdout", [0.0, 0.3])
@pytest.mark.parametrize(
    "traffic",
    [
        NOBODY,
        Traffic(1, "1", {"base": 0.0, "tuned": 1.0}, None),
        running(),
        running(coverage=0.4),
        running(paused=True),
    ],
    ids=["recipe", "decided", "experiment", "covers some", "paused"],
)
def test_what_is_remembered_is_what_the_database_says(exposures, holdout, traffic, workspace, monkeypatch):
    there = exposures(holdout)
    met = {unit: there.arm_of(unit, traffic) for unit in UNITS[:60]}
    assert {unit: exposures(holdout).arm_of(unit, traffic) for unit in met} == met
    again = {unit: there.remembered(unit, traffic) for unit in met}
    assert all(again[unit] in (met[unit], None) for unit in met)
    # Of those who met an arm of an experiment, or of the recipe, none needs the database again.
    assert all(again[unit] is not None for unit in met if met[unit].experiment or traffic is NOBODY)
    monkeypatch.setattr(workspace, "session", lambda: pytest.fail("it asks the database"))
    assert {unit: there.arm_of(unit, traffic) for unit in met if again[unit]} == {u: m for u, m in again.items() if m}


def test_a_pause_lets_nobody_in_and_moves_nobody(exposures, rows):
    before = {unit: exposures().arm_of(unit, running()) for unit in UNITS[:50]}
    paused = exposures()
    for unit in UNITS[:100]:
        met = paused.arm_of(unit, running(paused=True))
        assert met == before[unit] if unit in before else (met.arm, met.experiment) == ("base", None)
    assert len(rows(ExperimentExposureRow)) == 50


def test_other_weights_move_no_unit_that_was_exposed(exposures):
    before = {unit: exposures().arm_of(unit, running()) for unit in UNITS}
    other = running(weights={"base": 9.0, "tuned": 1.0})
    assert {unit: exposures().arm_of(unit, other) for unit in UNITS} == before


def test_what_an_experiment_decided_holds_for_everyone_but_the_holdout(exposures, rows):
    for unit in UNITS:
        exposures().arm_of(unit, NOBODY)
    decided = Traffic(2, "1", {"tuned": 1.0}, None)
    one = exposures(holdout=0.1)
    held = [unit for unit in UNITS if one.arm_of(unit, decided).arm == "base"]
    assert 20 < len(held) < 60
    # No experiment counts them either.
    assert all(one.arm_of(unit, running()).experiment is None for unit in held)
    assert {exposures().arm_of(unit, decided).arm for unit in UNITS} == {"tuned"}
    assert one.assigned("a request", running()) == "base" and one.assigned("a request", decided) == "tuned"


def test_gateways_that_meet_a_unit_at_once_agree(exposures, rows):
    met = []

    def ask():
        one = exposures()
        met.append([one.arm_of(unit, running()).arm for unit in UNITS[:40]])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(arms == met[0] for arms in met) and len(rows(ExperimentExposureRow)) == 40


def test_the_log_says_what_is_in_force(workspace, live):
    assert read_traffic(workspace, "small") == Traffic(None, None, None, None)
    row = live(coverage=0.5)
    found = read_traffic(workspace, "small").experiment
    assert (found.id, found.seed, found.coverage, found.control, found.paused) == (row.id, row.seed, 0.5, "base", False)
    lifecycle.pause(workspace, "small", "ada", "why not")
    assert read_traffic(workspace, "small").experiment.paused
    lifecycle.stop(workspace, "small", "ada", "enough")
    found = read_traffic(workspace, "small")
    assert found.experiment is None and found.weights == {"base": 1.0}


def test_an_experiment_of_a_model_that_is_no_longer_in_production_counts_for_nothing(workspace, live):
    live()
    deployments.append(
        workspace,
        recipe_name="small",
        action="promote",
        model_name="small",
        model_version="2",
        content={"train": {}},
        by="ada",
    )
    assert read_traffic(workspace, "small").experiment is None


def test_until_the_promoted_version_is_hosted_what_was_decided_about_the_hosted_one_goes_on(workspace, live):
    def promote(version):
        about = {"recipe_name": "small", "model_name": "small", "model_version": version, "content": {"train": {}}}
        return deployments.append(workspace, action="promote", by="ada", **about)

    lifecycle.end(workspace, live(), "harm", by="watcher", because="failures", champion="base")
    second = promote("2")
    assert read_traffic(workspace, "small", "1") == Traffic(second.id, "1", {"base": 1.0}, None, "2")
    assert read_traffic(workspace, "small", "2") == Traffic(second.id, "2", None, None, "2")
    assert read_traffic(workspace, "small", "never seen").weights is None
    # That the base serves everyone holds whichever version is hosted.
    lifecycle.end(workspace, live(), "harm", by="watcher", because="failures", champion="base")
    assert read_traffic(workspace, "small", "2").weights == {"base": 1.0}


def test_a_reading_that_is_hurried_does_not_wait_for_its_turn():
    read = threading.Semaphore(0)
    watch = TrafficWatch(lambda: read.release() or NOBODY, every_s=600)
    watch.current()
    assert read.acquire(timeout=30)
    watch.hurry()
    assert read.acquire(timeout=30)
    watch.close()


def test_the_last_reading_counts_while_the_database_is_away_and_none_is_503():
    answers = [NOBODY, OSError("away")]

    def read():
        one = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    watch = TrafficWatch(read, every_s=0.01)
    assert watch.current() is NOBODY
    while len(answers) > 1:
        pass
    assert watch.current() is NOBODY and watch.latest is NOBODY
    watch.close()


def test_nobody_is_answered_by_guess(http, service_of, monkeypatch):
    from serve import traffic

    monkeypatch.setattr(traffic, "FIRST_S", 0.1)
    service = service_of()

    def away():
        raise OSError("away")

    service.in_force.watch = TrafficWatch(away)
    with pytest.raises(RequestError, match="cannot be read at present"):
        service.in_force.watch.current()

    async def go():
        async with http(service) as client:
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "user": "jane"}
            return [await client.post("/v1/chat/completions", json=body | {"model": one}) for one in ("auto", "base")]

    unknown, named = asyncio.run(go())
    assert unknown.status_code == 503 and unknown.headers["retry-after"] == "2"
    assert named.status_code == 200
    service.in_force.watch.close()


def test_a_gateway_that_runs_follows_the_log(http, service_of, workspace, live, rows):
    row, service = live(), service_of()
    service.in_force.watch.close()
    service.in_force.watch = TrafficWatch(lambda: read_traffic(workspace, "small"), every_s=0.02)
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}

    async def arms(client, users):
        replies = [await client.post("/v1/chat/completions", json=body | {"user": user}) for user in users]
        return [reply.headers["x-sluice-arm"] for reply in replies]

    async def go():
        async with http(service) as client:
            users = [f"user-{number}" for number in range(12)]
            before = await arms(client, users)
            assert await arms(client, users) == before
            lifecycle.end(workspace, row, "better", by="ada", because="it is", champion="tuned")
            for _ in range(500):
                if service.in_force.watch.latest.experiment is None:
                    break
                await asyncio.sleep(0.02)
            return before, await arms(client, users)

    before, after = asyncio.run(go())
    assert set(before) == {"base", "tuned"} and set(after) == {"tuned"}
    service.close()
    assert {one.experiment_id for one in rows(InteractionRow)} == {row.id, None}
    assert len(rows(ExperimentExposureRow)) == 12


def test_a_shadow_is_answered_by_the_other_arm_and_seen_by_nobody(http, service_of, rows):
    service = service_of(shadow=1.0, weights={"base": 1.0, "tuned": 0.0})
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}

    async def go():
        async with http(service) as client:
            seen = await client.post("/v1/chat/completions", json=body | {"user": "jane"})
            named = await client.post("/v1/chat/completions", json=body | {"model": "base"})
            for _ in range(500):
                if "answered" in (text := (await client.get("/metrics")).text):
                    break
                await asyncio.sleep(0.02)
            return seen, named, text

    seen, named, text = asyncio.run(go())
    assert seen.headers["x-sluice-arm"] == named.headers["x-sluice-arm"] == "base"
    assert 'sluice_shadow_answers_total{arm="tuned",outcome="answered"} 1.0' in text
    service.close()
    shadows = [row for row in rows(InteractionRow) if row.shadow_of]
    assert [(row.shadow_of, row.arm, row.completion_tokens) for row in shadows] == [
        (seen.headers["x-request-id"], "tuned", 3)
    ]
    assert len(rows(InteractionRow)) == 3


def test_an_experiment_of_a_model_that_is_not_hosted_yet_counts_nobody(http, service_of, workspace, live, rows):
    live()
    service = service_of(model_version="0")

    async def arms():
        async with http(service) as client:
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            replies = [
                await client.post("/v1/chat/completions", json=body | {"user": f"user-{number}"}) for number in range(8)
            ]
            return {reply.headers["x-sluice-arm"] for reply in replies}, (await client.get("/healthz")).json()

    met, health = asyncio.run(arms())
    assert met == {"base", "tuned"} and health["in_production"] == "1"
    assert rows(ExperimentExposureRow) == [] and len(rows(ExposureRow)) == 8


def test_a_holdout_that_grew_moves_nobody_who_is_in(exposures):
    before = {unit: exposures().arm_of(unit, running()) for unit in UNITS[:100]}
    larger = exposures(holdout=0.5)
    assert {unit: larger.arm_of(unit, running()) for unit in before} == before
    new = [larger.arm_of(unit, running()) for unit in UNITS[100:]]
    assert 90 < sum(met.experiment is None for met in new) < 210


def test_an_end_between_two_queries_is_seen_as_what_it_led_to(workspace, live, monkeypatch):
    row, real = live(), lifecycle.live

    def ends_meanwhile(*arguments):
        found = real(*arguments)
        lifecycle.end(workspace, row, "harm", by="watcher", because="failures", champion="base")
        return found

    monkeypatch.setattr(lifecycle, "live", ends_meanwhile)
    found = read_traffic(workspace, "small")
    assert found.weights == {"base": 1.0} and found.experiment is None
