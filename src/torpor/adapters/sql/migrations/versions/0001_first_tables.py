"""The first tables: ledger, inventory, journal, history."""

import sqlalchemy as sa
from alembic import op

from torpor.adapters.sql.triggers import LEDGER_1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _ledger()
    _inventory()
    _journal()
    _history()
    for statement in LEDGER_1[op.get_bind().dialect.name]:
        op.execute(statement)


def _ledger() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("total_vcpus", sa.Integer, nullable=False),
        sa.Column("total_memory_mb", sa.Integer, nullable=False),
        sa.Column("total_disk_mb", sa.Integer, nullable=False),
        sa.Column("used_vcpus", sa.Integer, nullable=False, server_default="0"),
        sa.Column("used_memory_mb", sa.Integer, nullable=False, server_default="0"),
        sa.Column("used_disk_mb", sa.Integer, nullable=False, server_default="0"),
        sa.CheckConstraint("used_vcpus >= 0 AND used_vcpus <= total_vcpus", name="hosts_vcpus_fit"),
        sa.CheckConstraint("used_memory_mb >= 0 AND used_memory_mb <= total_memory_mb", name="hosts_memory_fits"),
        sa.CheckConstraint("used_disk_mb >= 0 AND used_disk_mb <= total_disk_mb", name="hosts_disk_fits"),
        sqlite_strict=True,
    )
    op.create_table(
        "claims",
        sa.Column("consumer", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("host", sa.Text, sa.ForeignKey("hosts.id", name="claims_host_known"), nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("disk_mb", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("consumer", "kind", name="claims_one_of_a_kind"),
        sa.CheckConstraint("vcpus >= 0 AND memory_mb >= 0 AND disk_mb >= 0", name="claims_not_negative"),
        sqlite_strict=True,
    )
    op.create_index("claims_by_host", "claims", ["host"])


def _inventory() -> None:
    op.create_table(
        "workloads",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("memory_mb", sa.Integer, nullable=False),
        sa.Column("disk_mb", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("preemptible", sa.Boolean, nullable=False),
        sa.Column("protect", sa.Boolean, nullable=False),
        sa.Column("duration", sa.Float),
        sa.Column("command", sa.Text),
        sa.Column("user_data", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("running_since", sa.Float),
        sa.Column("ran_for", sa.Float, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("problem", sa.JSON(none_as_null=True)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.UniqueConstraint("id", name="workloads_id_free"),
        sa.UniqueConstraint("name", name="workloads_name_free"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column(
            "workload",
            sa.Text,
            sa.ForeignKey("workloads.id", name="instances_workload_known", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("address_state", sa.Text, nullable=False),
        sa.Column("address_detail", sa.Text, nullable=False),
        sa.Column("command_pid", sa.Integer),
        sa.Column("exit_code", sa.Integer),
        sa.Column("problem", sa.JSON(none_as_null=True)),
        sa.UniqueConstraint("name", name="instances_name_free"),
        sa.UniqueConstraint("address", name="instances_address_free"),
        sa.UniqueConstraint("mac", name="instances_mac_free"),
        sa.UniqueConstraint("workload", "position", name="instances_position_free"),
    )


def _journal() -> None:
    op.create_table(
        "operations",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("workload_name", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("predicted_seconds", sa.Float),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("problem", sa.JSON(none_as_null=True)),
        sa.UniqueConstraint("id", name="operations_id_free"),
    )
    op.create_index("operations_by_status", "operations", ["status"])
    op.create_table(
        "steps",
        sa.Column(
            "operation",
            sa.Text,
            sa.ForeignKey("operations.id", name="steps_operation_known", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("instance", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("operation", "position", name="steps_position_free"),
    )


def _history() -> None:
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("events_by_subject", "events", ["subject", "number"])
    op.create_table(
        "timings",
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("sum_x", sa.Float, nullable=False),
        sa.Column("sum_t", sa.Float, nullable=False),
        sa.Column("sum_xx", sa.Float, nullable=False),
        sa.Column("sum_xt", sa.Float, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("host", "kind", name="timings_one_each"),
    )


def downgrade() -> None:
    raise RuntimeError("the first revision can't be taken back: remove the file instead")
