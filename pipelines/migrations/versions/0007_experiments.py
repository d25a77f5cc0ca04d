"""Experiments, their exposures and events; what an interaction has to do with them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and add the columns."""
    op.create_table(
        "experiments",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("recipe_name", sa.String(255), nullable=False),
        sa.Column("deployment_id", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.String(255), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("planned", sa.Integer(), nullable=False),
        sa.Column("seed", sa.String(255), nullable=False),
        sa.Column("state", sa.String(255), nullable=False),
        sa.Column("live", sa.String(255), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=False),
        sa.Column("covered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(255), nullable=True),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("live"),
    )
    op.create_index("ix_experiments_recipe_name", "experiments", ["recipe_name"])
    op.create_table(
        "experiment_events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_experiment_events_experiment_id", "experiment_events", ["experiment_id"])
    op.create_table(
        "experiment_exposures",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("unit", sa.String(255), nullable=False),
        sa.Column("arm", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("experiment_id", "unit"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("recipe_name", sa.String(255), nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("unit", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("recipe_name", "event_id"),
    )
    op.create_index("events_by_unit", "events", ["recipe_name", "name", "unit"])
    op.add_column("interactions", sa.Column("experiment_id", sa.Integer(), nullable=True))
    op.add_column("interactions", sa.Column("declined", sa.Boolean(), nullable=True))
    op.add_column("interactions", sa.Column("shadow_of", sa.String(255), nullable=True))
    op.create_index("interactions_by_experiment", "interactions", ["experiment_id", "unit"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("interactions_by_experiment", "interactions")
    for column in ("experiment_id", "declined", "shadow_of"):
        op.drop_column("interactions", column)
    for table in ("events", "experiment_exposures", "experiment_events", "experiments"):
        op.drop_table(table)
