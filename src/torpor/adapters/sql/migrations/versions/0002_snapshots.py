"""Which snapshot an operation is about, and what a clone is made of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workloads", sa.Column("origin_workload", sa.Text))
    op.add_column("workloads", sa.Column("origin_snapshot", sa.Text))
    op.add_column("operations", sa.Column("snapshot", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("operations", "snapshot")
    op.drop_column("workloads", "origin_snapshot")
    op.drop_column("workloads", "origin_workload")
