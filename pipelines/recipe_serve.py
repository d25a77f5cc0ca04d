"""What a recipe says of the service."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipelines.section import Fraction, PositiveFloat, Section

DEFAULT_PORTS = {"http": 80, "https": 443}


def _origin(value: str) -> str:
    """As browsers say it: what differs by a letter matches none."""
    found = re.fullmatch(r"(https?)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", value)
    port = int(found[3] or 1) if found else 0
    if not found or port > 65535 or port == DEFAULT_PORTS[found[1]]:
        raise ValueError("must be an origin as browsers say it, as https://app.example.org or http://localhost:3000")
    return value


Origin = Annotated[str, AfterValidator(_origin)]


class Serve(Section):
    """How the candidates are hosted."""

    weights: dict[Literal["base", "tuned"], Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={"base": 1.0, "tuned": 1.0}
    )
    """Relative share of users whose sticky arm is each candidate."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 512
    """The most tokens a request may ask for."""
    max_batch_size: Annotated[int, Field(ge=1, le=256)] = 16
    """Requests that generate at the same time; more wait."""
    max_queued_requests: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests that may wait; more are answered 429 with Retry-After."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Engines that are there at any time (of each candidate, with engine_per_candidate). With 0 none is while nobody
    asks: the next request waits for one to load."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Engines are started as requests need them, one for each max_batch_size that are asked at the same time, up to so
    many; machines come where the cluster has none left."""
    idle_after_s: PositiveFloat = 600
    """Seconds for which an engine is not needed before it ends."""
    engine_per_candidate: bool = False
    """Each candidate has engines of its own, min_replicas to max_replicas of them, that scale with what it is asked;
    each takes a GPU where there are GPUs. Otherwise an engine holds them all: less memory where adapters share a
    base."""
    log_prompts: bool | Literal["masked"] = True
    """Keep prompts and answers of interactions, not only their figures; `masked`: with the personal data and secrets
    that rules find in them replaced (names of people are none of these). Unless it is true, what people write of an
    answer is masked too."""
    keep_texts_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """Days after which the service forgets prompts, answers and what people wrote of them; the figures stay. Without
    it nothing is forgotten."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of users who always meet `base`, whatever is promoted or tried: what all of it together brought is the
    difference to them. No experiment counts them."""
    shadow: Fraction = 0.0
    """Share of the requests to a user's own arm that the other arm answers too: kept beside it, seen by nobody. They
    count as requests: they wake the other arm's engine, and keep it awake."""
    keys: Literal["off", "required"] = "off"
    """`required`: every request brings a key that `sluice keys add` made. Without keys the service listens to its own
    machine alone (127.0.0.1)."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins of the web pages whose scripts may ask the service from a browser, as https://app.example.org: of no
    others."""

    @field_validator("keys", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        # YAML reads a bare off as false.
        return "off" if value is False else value

    @model_validator(mode="after")
    def _fewest_are_not_most(self) -> "Serve":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self

    @model_validator(mode="after")
    def _someone_answers(self) -> "Serve":
        if sum(self.weights.values()) <= 0:
            raise ValueError("weights: at least one arm needs a weight above 0")
        return self
