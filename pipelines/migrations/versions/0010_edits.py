"""How much of an answer its correction changed; the latest interactions of an arm are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both. Of corrections that are there already it stays unknown: their answers may be forgotten."""
    op.add_column("feedback", sa.Column("edited", sa.Double(), nullable=True))
    op.create_index("interactions_by_arm", "interactions", ["recipe_name", "arm", "created_at"])
    # It begins the new one.
    op.drop_index("ix_interactions_recipe_name", "interactions")


def downgrade() -> None:
    """Drop both."""
    op.create_index("ix_interactions_recipe_name", "interactions", ["recipe_name"])
    op.drop_index("interactions_by_arm", "interactions")
    op.drop_column("feedback", "edited")
