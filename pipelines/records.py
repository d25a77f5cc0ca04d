"""The tables. Alembic's migrations in `pipelines/migrations/` create them; a test holds the two together."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Index, String, Text, TypeDecorator, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """To UTC; a naive time is our own mistake."""
        assert value is None or value.tzinfo is not None, "a time without a zone"
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """From UTC."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, datetime: UtcDateTime, str: String(255)}


class ReportRow(Table):
    """A stage's report; the newest row of a key counts."""

    __tablename__ = "reports"
    __table_args__ = (Index("reports_by_key", "stage", "key"), Index("reports_by_recipe", "recipe_name", "stage"))
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str]
    stage: Mapped[str]
    recipe_name: Mapped[str]
    verdict: Mapped[str]
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class WaiverRow(Table):
    """A person's decision to pass a closed gate."""

    __tablename__ = "waivers"
    id: Mapped[int] = mapped_column(primary_key=True)
    gate: Mapped[str]
    report: Mapped[str] = mapped_column(index=True)
    by: Mapped[str]
    because: Mapped[str] = mapped_column(Text)
    until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class QuarantineRow(Table):
    """A row that could not be read, kept with its reason."""

    __tablename__ = "quarantine"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(index=True)
    """Fingerprint of the data that it stood in."""
    source: Mapped[str] = mapped_column(Text)
    """File it stood in."""
    position: Mapped[int]
    """Row or line in the file, from 1."""
    reason: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    """The row as text, cut at 2,000 characters."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class SubmissionRow(Table):
    """A stage that was submitted as a Ray job; an attempt each."""

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("idempotency_key", "attempt"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(index=True)
    attempt: Mapped[int]
    submission_id: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str]
    stage: Mapped[str]
    recipe_name: Mapped[str]
    stop_requested_at: Mapped[datetime | None]
    """Set by `sluice stop`; the stage reads it at step boundaries."""
    state: Mapped[str | None]
    """Ray's state of the job when it was last asked: what is shown while the cluster is away."""
    exit_code: Mapped[int | None]
    """The stage's own exit code, once it has ended."""
    seen_at: Mapped[datetime | None]
    """When Ray was last asked."""
    content: Mapped[dict[str, Any] | None]
    """{"recipe": the resolved recipe, "command": the words of the command line}: enough to ask for the same again."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class DeploymentRow(Table):
    """Append-only: what is in production from when, by whom, on what evidence. The newest row counts."""

    __tablename__ = "deployments"
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str] = mapped_column(index=True)
    action: Mapped[str]
    """promote or rollback."""
    model_name: Mapped[str]
    model_version: Mapped[str]
    content: Mapped[dict[str, Any]]
    """Lineage: addresses, fingerprints, report keys, waivers; and once an experiment has decided, {"traffic": arm ->
    weight, "experiment": what it showed}."""
    by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class InteractionRow(Table):
    """A request and its answer."""

    __tablename__ = "interactions"
    __table_args__ = (
        # Both columns: an experiment's figures are summed up unit by unit.
        Index("interactions_by_experiment", "experiment_id", "unit"),
        Index("interactions_by_arm", "recipe_name", "arm", "created_at"),
        # Those alone that there is something to forget of.
        Index(
            "interactions_with_text",
            "recipe_name",
            "created_at",
            sqlite_where=text("answer IS NOT NULL"),
            postgresql_where=text("answer IS NOT NULL"),
        ),
    )
    request_id: Mapped[str] = mapped_column(primary_key=True)
    recipe_name: Mapped[str]
    unit: Mapped[str] = mapped_column(index=True)
    """Hash of the user that was assigned."""
    arm: Mapped[str]
    model: Mapped[str]
    messages: Mapped[dict[str, Any] | None]
    """{"messages": [...]} and "tools" where there were some, {"prompt": "..."} of a text to continue, or nothing where
    prompts are not kept."""
    answer: Mapped[str | None] = mapped_column(Text)
    finish_reason: Mapped[str | None]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    first_token_ms: Mapped[float | None]
    total_ms: Mapped[float]
    status: Mapped[int]
    experiment_id: Mapped[int | None]
    """The experiment that chose the arm; None where a client named it, or none ran."""
    declined: Mapped[bool | None]
    """Whether the answer refuses; None where that was not looked at."""
    shadow_of: Mapped[str | None]
    """The request whose prompt this is: nobody has seen the answer."""
    model_version: Mapped[str | None]
    """The registered version that the arms were; None where that was not known."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ExposureRow(Table):
    """The first time that a unit met an arm."""

    __tablename__ = "exposures"
    __table_args__ = (UniqueConstraint("recipe_name", "unit"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str]
    unit: Mapped[str]
    arm: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ExperimentRow(Table):
    """An experiment on live traffic. What it decides with is fixed at its start; what happened is in its events."""

    __tablename__ = "experiments"
    __table_args__ = (UniqueConstraint("live"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str] = mapped_column(index=True)
    deployment_id: Mapped[int]
    """The deployment that it tries: once there is a newer one, it is over."""
    model_version: Mapped[str]
    """The registered version that `tuned` is."""
    design: Mapped[dict[str, Any]]
    """The recipe's section as it was at the start."""
    planned: Mapped[int]
    """Units in both arms together at which it ends without a verdict."""
    seed: Mapped[str]
    state: Mapped[str]
    """running, paused or ended."""
    live: Mapped[str | None]
    """The recipe's name until it has ended: a recipe has one at a time."""
    coverage: Mapped[float]
    """Share of all units that take part by now."""
    covered_at: Mapped[datetime] = mapped_column(default=now)
    """Since when."""
    outcome: Mapped[str | None]
    """How it ended."""
    by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    looked_at: Mapped[datetime | None]
    """When the watcher looked last."""
    ended_at: Mapped[datetime | None]


class ExperimentEventRow(Table):
    """Append-only: what happened in an experiment, and what was seen at each look that showed something new."""

    __tablename__ = "experiment_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(index=True)
    action: Mapped[str]
    """start, pause, resume, cover, look, end, or a promote after the end."""
    content: Mapped[dict[str, Any]]
    by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ExperimentExposureRow(Table):
    """The first time that a unit met an arm of an experiment; committed before the answer."""

    __tablename__ = "experiment_exposures"
    __table_args__ = (UniqueConstraint("experiment_id", "unit"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int]
    unit: Mapped[str]
    arm: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class EventRow(Table):
    """Something that happened to a unit outside of the service: a case resolved, minutes of editing."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("recipe_name", "event_id"),
        Index("events_by_unit", "recipe_name", "name", "unit"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str]
    event_id: Mapped[str]
    """The sender's: the same event sent twice counts once."""
    unit: Mapped[str]
    request_id: Mapped[str | None]
    """The request that it came of, where the sender named one."""
    name: Mapped[str]
    value: Mapped[float]
    happened_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=now)


class FeedbackRow(Table):
    """What a person said of an answer."""

    __tablename__ = "feedback"
    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    """thumb_up, thumb_down, flag, correction, preferred or tied."""
    reason: Mapped[str | None] = mapped_column(Text)
    correction: Mapped[str | None] = mapped_column(Text)
    edited: Mapped[float | None]
    """Of a correction, its edit distance from the answer over the longer one's characters: 0 the same, 1 nothing kept.
    None where the answer was not kept."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ReviewRow(Table):
    """What a person decided about a suspect example; the newest row of an example counts."""

    __tablename__ = "reviews"
    __table_args__ = (Index("reviews_by_example", "recipe_name", "example_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str]
    example_id: Mapped[str]
    """Of the conversation as it was read: the decision holds wherever the same conversation comes back."""
    decision: Mapped[str]
    """keep or drop."""
    kinds: Mapped[dict[str, Any]]
    """{"kinds": [...]}: what it was suspected of."""
    by: Mapped[str]
    because: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)


class FitRow(Table):
    """Append-only: a transform that was fitted to rows of a split, and to which."""

    __tablename__ = "fits"
    __table_args__ = (Index("fits_by_table", "table_uri", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    table_uri: Mapped[str] = mapped_column(String(1024))
    version: Mapped[int]
    transform: Mapped[str]
    """What was fitted, such as `model weights` or `early stopping`."""
    side: Mapped[str]
    """The side of all rows that it saw."""
    rows: Mapped[int]
    ids: Mapped[str]
    """Fingerprint of the ids of these rows."""
    recipe_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SweepEventRow(Table):
    """What happened in a sweep, or what a person asked of it; see `pipelines.search.history`."""

    __tablename__ = "sweep_events"
    __table_args__ = (Index("sweep_events_by_sweep", "sweep", "id"), Index("sweep_events_by_recipe", "recipe_name"))
    id: Mapped[int] = mapped_column(primary_key=True)
    sweep: Mapped[str]
    recipe_name: Mapped[str]
    kind: Mapped[str]
    trial: Mapped[str]
    content: Mapped[dict[str, Any]]
    by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ApiKeyRow(Table):
    """A key of a recipe's service: what tells it from others, and nothing that would give it back."""

    __tablename__ = "api_keys"
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_name: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    """Who or what uses it; while a key is being replaced, two have the same."""
    prefix: Mapped[str]
    """Its first characters, to recognise it by."""
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[str]
    """What it may ask for: words with a space between."""
    per_minute: Mapped[int | None]
    """Requests per minute that it may make; None: any number."""
    by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    """From when on it no longer counts; ahead of now while it is being replaced."""
