"""The history of sweeps."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "sweep_events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("sweep", sa.String(255), nullable=False),
        sa.Column("recipe_name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(255), nullable=False),
        sa.Column("trial", sa.String(255), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("sweep_events_by_sweep", "sweep_events", ["sweep", "id"])
    op.create_index("sweep_events_by_recipe", "sweep_events", ["recipe_name"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("sweep_events")
