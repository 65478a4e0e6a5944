"""What a cloud's users say beside image and size; and networks of tenants, which may have the same addresses."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workloads", sa.Column("options", sa.JSON(none_as_null=True)))
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("network", sa.Text, nullable=False, server_default=""))
        table.drop_constraint("instances_address_free", type_="unique")
        table.create_unique_constraint("instances_address_free", ["network", "address"])


def downgrade() -> None:
    """Instances whose address another has, too, have no place in the older tables."""
    op.execute("DELETE FROM instances WHERE network <> ''")
    with op.batch_alter_table("instances") as table:
        table.drop_constraint("instances_address_free", type_="unique")
        table.create_unique_constraint("instances_address_free", ["address"])
        table.drop_column("network")
    op.drop_column("workloads", "options")
