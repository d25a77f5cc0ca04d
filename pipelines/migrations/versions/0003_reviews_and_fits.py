"""Decisions about suspect examples, and the ledger of what was fitted to which rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("recipe_name", sa.String(255), nullable=False),
        sa.Column("example_id", sa.String(255), nullable=False),
        sa.Column("decision", sa.String(255), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("reviews_by_example", "reviews", ["recipe_name", "example_id"])
    op.create_table(
        "fits",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("table_uri", sa.String(1024), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("transform", sa.String(255), nullable=False),
        sa.Column("side", sa.String(255), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("ids", sa.String(255), nullable=False),
        sa.Column("recipe_name", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("fits_by_table", "fits", ["table_uri", "version"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("fits")
    op.drop_table("reviews")
