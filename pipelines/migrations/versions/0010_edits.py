"""How much of an answer its correction changed; and an index by which the latest interactions of a recipe are found."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. Of corrections that are there already it stays unknown: their answers may be forgotten."""
    op.add_column("feedback", sa.Column("edited", sa.Float(), nullable=True))
    op.create_index("interactions_by_time", "interactions", ["recipe_name", "created_at"])


def downgrade() -> None:
    """Drop both."""
    op.drop_index("interactions_by_time", "interactions")
    op.drop_column("feedback", "edited")
