"""Workloads of VMs that others made; such a VM may have no address yet, and no network interface at all."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workloads", sa.Column("adopted", sa.Boolean, nullable=False, server_default="0"))
    with op.batch_alter_table("instances") as table:
        table.alter_column("address", existing_type=sa.Text, nullable=True)
        table.alter_column("mac", existing_type=sa.Text, nullable=True)


def downgrade() -> None:
    """Instances without an address have no place in the older tables: they go, and are taken in again later."""
    op.execute("DELETE FROM instances WHERE address IS NULL OR mac IS NULL")
    with op.batch_alter_table("instances") as table:
        table.alter_column("mac", existing_type=sa.Text, nullable=False)
        table.alter_column("address", existing_type=sa.Text, nullable=False)
    op.drop_column("workloads", "adopted")
