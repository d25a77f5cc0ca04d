"""Our client against a gateway that asks for keys, over a real socket."""

import json
import threading

import pytest

from cluster.errors import UserError
from serve import keys
from serve.client import Client, ServiceError

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def address(service_of):
    """Address of a gateway that asks for keys."""
    import uvicorn

    from serve.gateway import build_gateway

    server = uvicorn.Server(
        uvicorn.Config(build_gateway(service_of(keys="required")), host="127.0.0.1", port=0, log_config=None)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def key(workspace):
    return keys.add(workspace, "small", "tests", by="jane").key


def test_the_key_of_the_environment_is_sent_with_every_request(address, key, monkeypatch):
    monkeypatch.setenv("SLUICE_API_KEY", f" {key}\n")
    with Client(address) as client:
        answer = client.chat(HELLO, model="base", max_tokens=3)
        with client.stream(HELLO, model="base", max_tokens=3) as stream:
            assert "".join(stream) == answer.text
        assert client.feedback(answer.request_id, "thumb_up") and client.models() == ["small", "base", "tuned"]


def test_a_key_that_is_named_comes_before_the_environments(address, key, monkeypatch):
    monkeypatch.setenv("SLUICE_API_KEY", "sluice_of_another_service")
    with Client(address, api_key=key) as client:
        assert client.models()


def test_without_a_key_the_refusal_names_the_variable_and_health_answers(address, monkeypatch):
    monkeypatch.delenv("SLUICE_API_KEY", raising=False)
    with Client(address) as client:
        assert client.health()["recipe"] == "small"
        for ask in (client.models, lambda: client.stream(HELLO)):
            with pytest.raises(ServiceError, match="asks for a key") as refused:
                ask()
            assert refused.value.status == 401 and "SLUICE_API_KEY" in refused.value.remedy


def test_a_key_that_may_not_is_told_what_it_lacks(address, workspace):
    key = keys.add(workspace, "small", "reader", by="jane", scopes=["models"]).key
    with Client(address, api_key=key) as client, pytest.raises(ServiceError, match="lacks the scope chat") as refused:
        client.chat(HELLO)
    assert refused.value.status == 403 and "--scope" in refused.value.remedy


def test_a_stream_that_something_in_between_cut_off_in_good_order_is_an_error():
    import httpx

    from serve.client import Stream

    piece = {"model": "small-base", "choices": [{"delta": {"content": "Hel"}, "finish_reason": None}]}
    headers = {"x-request-id": "1", "x-sluice-arm": "base"}

    def stream(*lines):
        return Stream(httpx.Response(200, headers=headers, text="".join(f"data: {line}\n\n" for line in lines)))

    assert list(stream(json.dumps(piece), "[DONE]")) == ["Hel"]
    with pytest.raises(ServiceError, match="it has no end"):
        list(stream(json.dumps(piece)))


@pytest.mark.parametrize("wrong", ["two words", "sluice_\u00e9", "sluice_a\nX-Other: b"])
def test_what_cannot_be_a_key_is_refused_without_being_repeated(wrong):
    with pytest.raises(UserError, match="SLUICE_API_KEY") as refused:
        Client(api_key=wrong)
    assert wrong not in str(refused.value)


def test_authorities_that_cannot_be_read_are_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ServiceError, match="authorities that are trusted cannot be read") as refused:
        Client("https://localhost:9")
    assert "SSL_CERT_FILE" in refused.value.remedy
