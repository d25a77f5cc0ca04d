import asyncio
import concurrent.futures
import contextlib
import json
import socket

import httpx
import psutil
import pytest

from cluster.errors import GateClosed, UserError
from pipelines.engines.protocol import EngineOptions
from pipelines.recipe_file import load_recipe
from serve.client import ServiceError
from serve.listening import Address
from tests.serve.load import Load, kill
from tests.waiting import until

HELLO = [{"role": "user", "content": "Hello"}]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def health_of(client, name):
    """What the service says of itself under this name; None while it does not say."""
    try:
        return client.health().get(name)
    except ServiceError:
        # Two cores that load an engine, or end one, may take longer than the gateway waits.
        return None


def promote(workspace, recipe, tiny_model, adapter, version="1"):
    """What `sluice promote` leaves, for an adapter that was trained elsewhere."""
    from pipelines.fingerprint import folder_fingerprint
    from pipelines.tracking import deployments

    train = {
        "model": str(adapter),
        "model_fingerprint": folder_fingerprint(adapter),
        "base": str(tiny_model),
        "base_fingerprint": folder_fingerprint(tiny_model),
        "base_folder": str(tiny_model),
        "method": "lora",
        "run_id": "",
    }
    return deployments.append(
        workspace,
        recipe_name=recipe.name,
        action="promote",
        model_name=recipe.name,
        model_version=version,
        content={"train": train, "recipe": recipe.model_dump(mode="json")},
        by="a test",
    )


def test_nothing_is_served_before_it_is_promoted(workspace, recipe_file):
    from serve.app import start

    with pytest.raises(GateClosed, match="nothing is promoted"):
        start(load_recipe(recipe_file()), workspace, Address())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "example.org", "127.0.0.1.example.org"])
def test_other_machines_are_not_served_without_keys(workspace, recipe_file, host):
    from serve.app import start

    with pytest.raises(UserError, match=r"other machines would reach it, and serve\.keys is off") as refused:
        start(load_recipe(recipe_file()), workspace, Address(host))
    assert "sluice keys add" in refused.value.remedy and "127.0.0.1" in refused.value.remedy
    with pytest.raises(GateClosed, match="nothing is promoted"):
        start(load_recipe(recipe_file(serve={"keys": "required"})), workspace, Address(host))


def test_an_engine_that_is_not_installed_is_missed_before_anything_starts(
    workspace, recipe_file, tiny_model, tiny_adapter, tmp_path, monkeypatch
):
    from pipelines.engines import vllm_package
    from serve.app import start

    monkeypatch.setattr(vllm_package, "BESIDE", tmp_path)
    monkeypatch.setattr(vllm_package, "find_spec", lambda name: None)
    recipe = load_recipe(recipe_file(cluster={"engine": "vllm"}))
    promote(workspace, recipe, tiny_model, tiny_adapter)
    with pytest.raises(UserError, match="vLLM is not installed here") as missed:
        start(recipe, workspace, Address())
    assert "make vllm" in missed.value.remedy


def test_an_engine_makes_room_for_the_next_version_where_arms_have_weights_of_their_own(recipe_file):
    from pipelines.models.candidate import Candidate
    from serve.app import engine_options

    recipe = load_recipe(recipe_file(cluster={"engine": "vllm"}))
    one, other = Candidate("base", "/base", None, "", "b"), Candidate("tuned", "/tuned", None, "", "t")
    shared = Candidate("tuned", "/base", "/adapter", "", "t")
    trained = {"dtype": "bfloat16", "lora_r": 128}

    def options(**arms):
        return engine_options(recipe, trained, arms, "/base")

    assert options(base=one, tuned=shared).engines == 1
    own = options(base=one, tuned=other)
    assert (own.engines, own.kind, own.dtype, own.lora_rank) == (3, "vllm", "bfloat16", 128)
    # Where each arm has engines of its own.
    for arms, engines, rank in (({"base": one}, 1, 0), ({"tuned": shared}, 1, 128), ({"tuned": other}, 2, 128)):
        own = options(**arms)
        assert (own.engines, own.lora_rank) == (engines, rank)


@pytest.mark.parametrize(
    ("served", "gpus", "said"),
    [
        ({}, 0, None),
        ({"min_replicas": 7, "max_replicas": 7}, 0, None),
        ({"min_replicas": 8, "max_replicas": 8}, 0, "8 engines and a gateway take 9 CPUs"),
        ({"engine_per_candidate": True}, 0, None),
        (
            {"engine_per_candidate": True, "min_replicas": 4, "max_replicas": 4},
            0,
            "8 engines and a gateway take 9 CPUs",
        ),
        ({}, 1, None),
        ({"engine_per_candidate": True}, 1, "2 engines and a gateway take 2 GPUs"),
        ({"engine_per_candidate": True, "min_replicas": 0}, 1, "2 engines and a gateway take 2 GPUs"),
        ({"engine_per_candidate": True}, 2, None),
    ],
)
def test_engines_that_this_machine_can_never_have_are_refused_at_once(monkeypatch, recipe_file, served, gpus, said):
    from serve.app import check_room

    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": float(gpus)})
    recipe = load_recipe(recipe_file(serve=served))
    if said is None:
        check_room(recipe, arms=2)
        return
    with pytest.raises(UserError, match=said) as refused:
        check_room(recipe, arms=2)
    assert "serve.engine_per_candidate=false" in refused.value.remedy


@pytest.mark.parametrize(("cluster", "gpu"), [({}, 0), ({"accelerator_type": "A100"}, 1), ({"use_gpu": True}, 1)])
def test_the_replica_asks_for_a_gpu_that_is_yet_to_start(monkeypatch, recipe_file, cluster, gpu):
    from serve.app import replica_options

    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr("cluster.connect._is_embedded", lambda: False)
    assert replica_options(load_recipe(recipe_file(cluster=cluster)).cluster).get("num_gpus", 0) == gpu


def test_what_a_recipe_says_of_serving_reaches_gateway_and_engine(workspace, recipe_file, tiny_model, tiny_adapter):
    from serve.app import build
    from serve.following import promoted

    said = {
        "max_new_tokens": 77,
        "max_batch_size": 3,
        "max_queued_requests": 5,
        "min_replicas": 0,
        "max_replicas": 4,
        "idle_after_s": 30.0,
        "log_prompts": "masked",
        "keep_texts_days": 30,
        "holdout": 0.05,
        "shadow": 0.25,
        "keys": "required",
        "cors_origins": ("https://app.example.org",),
        "engine_per_candidate": False,
        "weights": {"base": 1.0, "tuned": 3.0},
    }
    recipe = load_recipe(recipe_file(serve=said, cluster={"use_gpu": False}))
    assert said.keys() == type(recipe.serve).model_fields.keys(), "a key that is new is handed on, and looked at here"
    promote(workspace, recipe, tiny_model, tiny_adapter)
    gateway = build(recipe, workspace.settings, *promoted(recipe.name, workspace))._bound_deployment
    engine, hosted, _ = gateway.init_args
    of_the_engine = {
        "max_batch_size",
        "max_queued_requests",
        "min_replicas",
        "max_replicas",
        "idle_after_s",
        "engine_per_candidate",
    }
    assert {name: getattr(hosted, name) for name in said.keys() - of_the_engine} == {
        name: value for name, value in said.items() if name not in of_the_engine
    }
    assert hosted.sleeps
    scaling = engine._bound_deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 4)
    assert (scaling.target_ongoing_requests, scaling.downscale_delay_s) == (3, 30)
    assert engine._bound_deployment.init_args[1] == EngineOptions("transformers", "auto", 3, 5, lora_rank=16)


def test_each_candidate_has_engines_of_its_own_where_the_recipe_says_so(
    workspace, recipe_file, tiny_model, tiny_adapter
):
    from serve.app import build
    from serve.following import promoted

    served = {"engine_per_candidate": True, "max_replicas": 2}
    recipe = load_recipe(recipe_file(serve=served, cluster={"use_gpu": False}))
    promote(workspace, recipe, tiny_model, tiny_adapter)
    gateway = build(recipe, workspace.settings, *promoted(recipe.name, workspace))._bound_deployment
    engines = {arm: one._bound_deployment for arm, one in gateway.init_args[0].items()}
    assert {arm: one.name for arm, one in engines.items()} == {"base": "engine-base", "tuned": "engine-tuned"}
    for arm, one in engines.items():
        hosted, options, follow = one.init_args
        assert list(hosted) == [arm] and follow.arms == (arm,)
        assert options.lora_rank == {"base": 0, "tuned": 16}[arm]
        assert one._deployment_config.autoscaling_config.max_replicas == 2


def test_an_adapter_that_changed_since_it_was_promoted_is_refused(
    workspace, recipe_file, tiny_model, tiny_adapter, tmp_path
):
    import shutil

    from serve.app import start

    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, adapter)
    recipe = load_recipe(recipe_file())
    promote(workspace, recipe, tiny_model, adapter)
    with (adapter / "adapter_model.safetensors").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(GateClosed, match="not those that were trained"):
        start(recipe, workspace, Address())


@pytest.fixture(scope="module")
def recipe_over(tmp_path_factory, tiny_model):
    """`recipe_over(engine)`: what is served, by that engine."""

    def make(engine):
        import yaml

        path = tmp_path_factory.mktemp("recipes") / "recipe.yaml"
        content = {
            "name": "served",
            "dataset": {"source": "none.jsonl"},
            "models": [{"base": str(tiny_model)}],
            "train": {"dtype": "float32"},
            "serve": {"max_new_tokens": 1000, "max_batch_size": 2, "max_queued_requests": 2},
            "cluster": {"engine": engine},
        }
        path.write_text(yaml.safe_dump(content))
        return load_recipe(path)

    return make


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def recipe(request, recipe_over):
    return recipe_over(request.param)


@pytest.fixture(scope="module")
def server(ray_cluster, recipe, tiny_model, tiny_adapter):
    from serve.app import start

    promote(ray_cluster, recipe, tiny_model, tiny_adapter)
    handle = start(recipe, ray_cluster, Address(port=free_port()))
    yield handle
    handle.stop()


@pytest.fixture
def client(server):
    from serve.client import Client

    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def openai_client(server):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def vllm_processes():
    """Those that vLLM has started for this test's Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "VLLM" in process.name() or any("VLLM::" in part for part in process.cmdline()):
                found.append(process)
    return found


def lives(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def rows(workspace, table, request_id):
    from sqlalchemy import select

    with workspace.session() as session:
        return list(session.scalars(select(table).where(table.request_id == request_id)))


@pytest.mark.cluster
def test_the_openai_client_chats_and_streams(openai_client):
    answer = openai_client.chat.completions.create(model="tuned", messages=HELLO, max_tokens=8)
    pieces = list(
        openai_client.chat.completions.create(
            model="tuned", messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
    assert text == answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 8
    assert len(pieces) > 4, "it must come in pieces"
    assert pieces[-1].usage == answer.usage
    assert answer.model == "served-tuned"
    assert [model.id for model in openai_client.models.list()] == ["served", "base", "tuned"]


@pytest.mark.cluster
def test_the_openai_client_is_told_probabilities(openai_client):
    asked = {"model": "tuned", "messages": HELLO, "max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    choice = openai_client.chat.completions.create(**asked).choices[0]
    told = choice.logprobs.content
    assert len(told) == 8 and all(len(token.top_logprobs) == 2 for token in told)
    # The likeliest is chosen, and it is told first.
    assert all(token.logprob == token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob for token in told)
    assert b"".join(bytes(token.bytes) for token in told if token.bytes is not None).decode()
    streamed = openai_client.chat.completions.create(**asked, stream=True)
    choices = [choice for event in streamed for choice in event.choices if choice.logprobs]
    pieces = [token for choice in choices for token in choice.logprobs.content]
    assert [token.token for token in pieces] == [token.token for token in told]

    whole = openai_client.completions.create(model="base", prompt="The file is", max_tokens=8, logprobs=1).choices[0]
    assert len(whole.logprobs.tokens) == len(whole.logprobs.token_logprobs) == len(whole.logprobs.top_logprobs) == 8
    assert whole.logprobs.text_offset[:2] == [0, len(whole.logprobs.tokens[0])]
    assert all(logprob < 0 for logprob in whole.logprobs.token_logprobs)


@pytest.mark.cluster
def test_the_openai_client_gets_a_call_where_it_asks_for_one(openai_client):
    kind = {"type": "object", "properties": {"kind": {"enum": ["oak", "elm"]}}, "required": ["kind"]}
    tools = [{"type": "function", "function": {"name": "plant", "parameters": kind | {"additionalProperties": False}}}]
    asked = {"model": "tuned", "messages": HELLO, "tools": tools, "tool_choice": "required", "max_tokens": 60}
    (choice,) = openai_client.chat.completions.create(**asked).choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and call.function.name == "plant"
    assert json.loads(call.function.arguments)["kind"] in ("oak", "elm")
    result = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    again = asked | {"messages": [*HELLO, choice.message, result], "tool_choice": "auto", "max_tokens": 5}
    assert openai_client.chat.completions.create(**again).usage.completion_tokens == 5
    with openai_client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments


@pytest.mark.cluster
def test_the_openai_client_gets_json_where_it_asks_for_it(openai_client):
    import json

    import openai

    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    named = {"name": "one", "schema": schema | {"additionalProperties": False}, "strict": True}
    asked = {"model": "tuned", "messages": HELLO, "max_tokens": 400}
    answer = openai_client.chat.completions.create(
        **asked, response_format={"type": "json_schema", "json_schema": named}
    )
    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(answer.choices[0].message.content)["ok"] in (True, False)
    with pytest.raises(openai.BadRequestError, match="The schema is none, at type") as refused:
        wrong = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"type": "objekt"}}}
        openai_client.chat.completions.create(**asked, response_format=wrong)
    assert refused.value.code == "invalid_json_schema" and refused.value.param == "response_format"


@pytest.mark.cluster
def test_the_openai_client_continues_a_text_and_the_figures_know_of_it(openai_client, server):
    asked = {"model": "tuned", "prompt": "The file is", "max_tokens": 8}
    whole = openai_client.completions.create(**asked)
    pieces = list(openai_client.completions.create(**asked, stream=True))
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == whole.choices[0].text
    figures = httpx.get(f"{server.url}/metrics", timeout=30).text
    assert 'sluice_requests_total{arm="tuned",endpoint="completions",status="200"} 2.0' in figures
    assert "sluice_engine_up 1.0" in figures


@pytest.mark.cluster
def test_the_same_user_always_gets_the_same_arm(openai_client):
    def arm(user):
        raw = openai_client.chat.completions.with_raw_response.create(
            model="auto", messages=HELLO, max_tokens=1, user=user
        )
        return raw.headers["x-sluice-arm"]

    users = [f"user-{n}" for n in range(8)]
    arms = [arm(user) for user in users]
    assert set(arms) == {"base", "tuned"}
    assert [arm(user) for user in users] == arms


@pytest.mark.cluster
def test_a_flag_is_in_the_database(client, ray_cluster):
    from pipelines.records import FeedbackRow, InteractionRow

    answer = client.chat(HELLO, user="jane", max_tokens=4)
    assert client.feedback(answer.request_id, "flag", "nonsense")
    (row,) = rows(ray_cluster, FeedbackRow, answer.request_id)
    assert (row.kind, row.reason) == ("flag", "nonsense")
    (kept,) = until(lambda: rows(ray_cluster, InteractionRow, answer.request_id), "the row")
    assert (kept.arm, kept.answer, kept.completion_tokens) == (answer.arm, answer.text, 4)


@pytest.mark.cluster
def test_openais_own_errors_come_out_of_its_client(openai_client):
    import openai

    with pytest.raises(openai.NotFoundError, match="no model"):
        openai_client.chat.completions.create(model="gpt-9", messages=HELLO)
    with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
        openai_client.chat.completions.create(model="base", messages=HELLO, max_tokens=10**9)
    with pytest.raises(openai.APIStatusError) as large:
        openai_client.chat.completions.create(model="base", messages=[{"role": "user", "content": "x" * 2**21}])
    assert large.value.status_code == 413


@pytest.mark.cluster
def test_too_many_at_once_are_429(server, client):
    body = {"messages": HELLO, "model": "base", "max_tokens": 400}
    # One client for all: to make one takes longer than an answer, and they would come one after the other.
    with httpx.Client(base_url=server.url, timeout=120) as http, concurrent.futures.ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda _: http.post("/v1/chat/completions", json=body), range(24)))
    statuses = sorted(reply.status_code for reply in replies)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    assert all(reply.headers["retry-after"] for reply in replies if reply.status_code == 429)
    assert client.chat(HELLO, max_tokens=1).text is not None


@pytest.mark.cluster
@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_its_slot(server, client, ray_cluster, recipe, streamed):
    from pipelines.records import InteractionRow

    before = client.health()["generated_tokens"]
    body = {"messages": HELLO, "model": "base", "max_tokens": 1000, "stream": streamed}
    if streamed:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
            next(reply.iter_lines())
            request_id = reply.headers["x-request-id"]
    else:
        request_id = None

        async def leave():
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                asked = asyncio.create_task(http.post("/v1/chat/completions", json=body))
                while not (asked.done() or (await http.get("/healthz")).json()["running"]):
                    await asyncio.sleep(0.01)
                asked.cancel()
                await asyncio.wait([asked])

        asyncio.run(leave())
    until(lambda: health_of(client, "running") == 0, "the end of the work")
    # vLLM may be through with the tiny model's thousand before word of it has come; its own tests cancel directly.
    may_be_through = recipe.cluster.engine == "vllm"
    assert may_be_through or client.health()["generated_tokens"] - before < 1000
    if request_id:
        (row,) = until(lambda: rows(ray_cluster, InteractionRow, request_id), "the row")
        ended = (row.status, row.finish_reason)
        assert ended == (499, "cancelled") or (may_be_through and ended == (200, "length"))


@pytest.mark.cluster
def test_our_client_streams_and_says_what_went_wrong(client, server):
    from serve.client import Client, ServiceError

    with client.stream(HELLO, model="base", max_tokens=6) as stream:
        text = "".join(stream)
    assert text == client.chat(HELLO, model="base", max_tokens=6).text
    assert (stream.arm, stream.model, stream.finish_reason) == ("base", "served-base", "length")
    assert stream.usage.completion_tokens == 6
    with pytest.raises(ServiceError, match="no model") as refused:
        client.stream(HELLO, model="nobody")
    assert refused.value.status == 404
    with pytest.raises(ServiceError, match="no request"):
        client.feedback("chatcmpl-none", "thumb_up")
    with Client(f"http://127.0.0.1:{free_port()}") as nobody, pytest.raises(ServiceError, match="cannot be reached"):
        nobody.health()


@pytest.mark.cluster
def test_another_version_is_hosted_under_load_without_a_failure_and_a_killed_replica_comes_back_with_it(
    server, client, recipe, ray_cluster, tiny_model, tiny_adapter, other_adapter
):
    from pipelines.records import InteractionRow

    def say(tokens):
        return client.chat(HELLO, model="tuned", max_tokens=tokens).text

    old = say(24)
    with Load(server, 24) as load:
        until(lambda: old in load.whole.values(), "an answer of the old version")
        promote(ray_cluster, recipe, tiny_model, other_adapter, "2")
        until(lambda: health_of(client, "version") == "2", "the new version")
        new = say(24)
        until(lambda: new in load.whole.values(), "an answer of the new version")
    assert load.broken == [] and new != old
    assert {old, new} == set(load.whole.values()), "each answer is one version's from its beginning to its end"

    # So long that both are in the middle of an answer.
    with Load(server, 400) as load:
        until(lambda: load.whole, "an answer")
        engines = vllm_processes()
        until(lambda: health_of(client, "running") == 2, "two answers at work")
        assert kill("ray::ServeReplica:served:engine") == 1
        # What a replica has started goes with it, or the next one finds no room.
        assert bool(engines) == (recipe.cluster.engine == "vllm")
        until(lambda: not any(map(lives, engines)), "the end of its processes")
        answered = len(load.whole)
        until(lambda: len(load.whole) > answered + 2, "answers of another replica")
    assert 1 <= len(load.broken) <= 2, "more failed than were in flight"
    # Over so many tokens two that are answered together may differ from one alone: nothing is said of their texts.
    for request_id in load.whole:
        (row,) = until(lambda request_id=request_id: rows(ray_cluster, InteractionRow, request_id), "the row")
        assert row.status == 200 and (row.finish_reason == "stop" or row.completion_tokens == 400), "it was cut off"
        assert row.model_version == "2", "an older version came back"

    promote(ray_cluster, recipe, tiny_model, tiny_adapter, "1")
    until(lambda: health_of(client, "version") == "1", "the first version")


def test_the_refusal_of_serves_controller_is_told_without_its_traceback():
    from ray.exceptions import RayTaskError
    from ray.serve.exceptions import RayServeException

    from serve.app import _not_deployed

    reason = RayServeException('Prefix / is being used by application "first".')
    try:
        raise RayTaskError("deploy", "Traceback (most recent call last): ...", reason).as_instanceof_cause()
    except RayServeException as error:
        beside, alone = _not_deployed("second", ["first"], error), _not_deployed("second", [], error)
    assert beside.message == f"second cannot be served beside first: {reason}" and beside.exit_code == 2
    assert alone.message == f"second could not be served: {reason}" and alone.exit_code == 1


@pytest.mark.cluster
def test_a_second_service_at_another_port_or_of_another_recipe_is_refused(
    ray_cluster, recipe_over, tiny_model, tiny_adapter
):
    from ray import serve as ray_serve

    from serve.app import start

    # What an earlier test served may take longer to end than its end is waited for.
    ray_serve.shutdown()
    recipe = recipe_over("transformers")
    second = recipe.model_copy(update={"name": "second"})
    for one in (recipe, second):
        promote(ray_cluster, one, tiny_model, tiny_adapter)
    port = free_port()
    handle = start(recipe, ray_cluster, Address(port=port))
    try:
        with pytest.raises(UserError, match=f"already, at 127.0.0.1:{port}"):
            start(recipe, ray_cluster, Address(port=free_port()))
        with pytest.raises(UserError, match="second cannot be served beside served"):
            start(second, ray_cluster, Address(port=port))
        assert httpx.get(f"{handle.url}/healthz", timeout=30).json()["recipe"] == "served"
    finally:
        handle.stop()
