"""Scripts of other web pages ask the service where the recipe names their origin, and nowhere else."""

import asyncio

import pytest

from cluster.errors import UserError
from pipelines.recipe_file import load_recipe

PAGE = "https://app.example.org"
OTHER = "https://elsewhere.example.org"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def replies(http, service, *requests):
    async def go():
        async with http(service) as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(go())


def asked(origin, **more):
    return {"headers": {"origin": origin} | more}


def test_the_origins_of_the_recipe_may_ask_and_read_who_answered(http, service_of):
    first, answer, refused = replies(
        http,
        service_of(cors_origins=(PAGE,)),
        ("OPTIONS", "/v1/chat/completions", asked(PAGE, **PREFLIGHT)),
        (
            "POST",
            "/v1/chat/completions",
            asked(PAGE) | {"json": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}},
        ),
        ("POST", "/v1/chat/completions", asked(PAGE) | {"json": {"messages": []}}),
    )
    assert first.status_code == 200
    assert set(first.headers["access-control-allow-headers"].split(",")) >= {"authorization", "x-stainless-lang"}
    assert (answer.status_code, refused.status_code) == (200, 422)
    for reply in (first, answer, refused):
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in reply.headers
    assert "x-sluice-arm" in answer.headers["access-control-expose-headers"]


def test_a_failure_can_be_read_too(http, service_of, monkeypatch):
    service = service_of(cors_origins=(PAGE,))
    monkeypatch.setattr(service, "models", lambda: 1 / 0)
    (reply,) = replies(http, service, ("GET", "/v1/models", asked(PAGE)))
    assert reply.status_code == 500 and reply.headers["access-control-allow-origin"] == PAGE


def test_a_key_is_asked_for_all_the_same_and_its_refusal_can_be_read(http, service_of):
    (reply,) = replies(http, service_of(cors_origins=(PAGE,), keys="required"), ("GET", "/v1/models", asked(PAGE)))
    assert reply.status_code == 401 and reply.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(("origins", "origin"), [((), PAGE), ((PAGE,), OTHER), ((PAGE,), "null")])
def test_nobody_else_may(http, service_of, origins, origin):
    first, answer = replies(
        http,
        service_of(cors_origins=origins),
        ("OPTIONS", "/v1/models", asked(origin, **PREFLIGHT)),
        ("GET", "/v1/models", asked(origin)),
    )
    assert first.status_code in (400, 405)
    for reply in (first, answer):
        assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.org",
        "http://localhost:3000",
        "http://127.0.0.1:8501",
        "http://[::1]:3000",
        "http://my_host:3000",
    ],
)
def test_an_origin_is_what_browsers_say(recipe_file, origin):
    assert load_recipe(recipe_file(serve={"cors_origins": [origin]})).serve.cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "*",
            "null",
            "app.example.org",
            "https://app.example.org/",
            "https://App.example.org",
            "ftp://app.example.org",
        ),
        *("https://app.example.org:443", "http://localhost:80", "http://localhost:0", "http://localhost:99999"),
        *("https://a..b", "https://", "https://app.example.org\n"),
    ],
)
def test_what_would_match_none_or_everybody_is_refused(recipe_file, origin):
    with pytest.raises(UserError, match="must be an origin as browsers say it"):
        load_recipe(recipe_file(serve={"cors_origins": [origin]}))
