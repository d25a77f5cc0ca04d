"""The registered version that gave an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of earlier answers it is not known."""
    op.add_column("interactions", sa.Column("model_version", sa.String(255), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("interactions", "model_version")
