"""What deleted instances had for addresses, by hostname, for whoever is run under that name again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "last_addresses",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.UniqueConstraint("name", name="last_addresses_one_a_name"),
    )


def downgrade() -> None:
    op.drop_table("last_addresses")
