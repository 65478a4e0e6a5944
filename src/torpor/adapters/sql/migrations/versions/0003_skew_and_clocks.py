"""How near to one instant a gang's standstill was, and what became of the guests' clocks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("skew", sa.Float))
    op.add_column("instances", sa.Column("clock_off", sa.Float))
    op.add_column("instances", sa.Column("clock_detail", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("instances", "clock_detail")
    op.drop_column("instances", "clock_off")
    op.drop_column("steps", "skew")
