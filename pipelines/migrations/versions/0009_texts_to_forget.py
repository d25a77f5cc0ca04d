"""An index of the interactions whose texts are kept: what is to be forgotten is found without reading the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    kept = sa.text("answer IS NOT NULL")
    op.create_index(
        "interactions_with_text",
        "interactions",
        ["recipe_name", "created_at"],
        sqlite_where=kept,
        postgresql_where=kept,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("interactions_with_text", "interactions")
