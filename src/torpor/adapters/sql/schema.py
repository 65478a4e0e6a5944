"""The tables. A change here needs a new migration beside it; a test compares the two.

The ledger's tables are STRICT: what they say must hold for raw SQL too, and without STRICT
SQLite would take a text for a number. Times are seconds since the epoch, UTC.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("total_vcpus", Integer, nullable=False),
    Column("total_memory_mb", Integer, nullable=False),
    Column("total_disk_mb", Integer, nullable=False),
    # Kept by triggers on `claims`; see triggers.py.
    Column("used_vcpus", Integer, nullable=False, server_default="0"),
    Column("used_memory_mb", Integer, nullable=False, server_default="0"),
    Column("used_disk_mb", Integer, nullable=False, server_default="0"),
    CheckConstraint("used_vcpus >= 0 AND used_vcpus <= total_vcpus", name="hosts_vcpus_fit"),
    CheckConstraint("used_memory_mb >= 0 AND used_memory_mb <= total_memory_mb", name="hosts_memory_fits"),
    CheckConstraint("used_disk_mb >= 0 AND used_disk_mb <= total_disk_mb", name="hosts_disk_fits"),
    sqlite_strict=True,
)

claims = Table(
    "claims",
    metadata,
    Column("consumer", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("host", Text, ForeignKey("hosts.id", name="claims_host_known"), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    PrimaryKeyConstraint("consumer", "kind", name="claims_one_of_a_kind"),
    CheckConstraint("vcpus >= 0 AND memory_mb >= 0 AND disk_mb >= 0", name="claims_not_negative"),
    Index("claims_by_host", "host"),
    sqlite_strict=True,
)

workloads = Table(
    "workloads",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("preemptible", Boolean, nullable=False),
    Column("protect", Boolean, nullable=False),
    Column("duration", Float),
    Column("command", Text),
    Column("user_data", Text),
    Column("state", Text, nullable=False),
    Column("running_since", Float),
    Column("ran_for", Float, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("problem", JSON(none_as_null=True)),
    Column("attempts", Integer, nullable=False),
    Column("origin_workload", Text),
    Column("origin_snapshot", Text),
    Column("adopted", Boolean, nullable=False, server_default="0"),
    # What of `ServerOptions` is said; NULL: nothing.
    Column("options", JSON(none_as_null=True)),
    UniqueConstraint("id", name="workloads_id_free"),
    UniqueConstraint("name", name="workloads_name_free"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "workload",
        Text,
        ForeignKey("workloads.id", name="instances_workload_known", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    # NULL, which any number of rows may share, where there is none (yet).
    Column("address", Text),
    Column("mac", Text),
    Column("host", Text),
    Column("address_state", Text, nullable=False),
    Column("address_detail", Text, nullable=False),
    Column("command_pid", Integer),
    Column("exit_code", Integer),
    Column("problem", JSON(none_as_null=True)),
    Column("clock_off", Float),
    Column("clock_detail", Text, nullable=False, server_default=""),
    Column("network", Text, nullable=False, server_default=""),
    UniqueConstraint("name", name="instances_name_free"),
    UniqueConstraint("network", "address", name="instances_address_free"),
    UniqueConstraint("mac", name="instances_mac_free"),
    UniqueConstraint("workload", "position", name="instances_position_free"),
)

last_addresses = Table(
    "last_addresses",
    metadata,
    # Grows with every removal.
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("mac", Text, nullable=False),
    Column("network", Text, nullable=False),
    UniqueConstraint("name", name="last_addresses_one_a_name"),
)

operations = Table(
    "operations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # No foreign keys to workloads: the journal outlives them.
    Column("workload", Text, nullable=False),
    Column("workload_name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("predicted_seconds", Float),
    Column("status", Text, nullable=False),
    Column("ended_at", Float),
    Column("problem", JSON(none_as_null=True)),
    Column("snapshot", Text, nullable=False, server_default=""),
    UniqueConstraint("id", name="operations_id_free"),
    Index("operations_by_status", "status"),
)

steps = Table(
    "steps",
    metadata,
    Column(
        "operation",
        Text,
        ForeignKey("operations.id", name="steps_operation_known", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("instance", Text),
    Column("status", Text, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("detail", Text, nullable=False),
    Column("skew", Float),
    PrimaryKeyConstraint("operation", "position", name="steps_position_free"),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("message", Text, nullable=False),
    Index("events_by_subject", "subject", "number"),
)

timings = Table(
    "timings",
    metadata,
    Column("host", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("sum_x", Float, nullable=False),
    Column("sum_t", Float, nullable=False),
    Column("sum_xx", Float, nullable=False),
    Column("sum_xt", Float, nullable=False),
    Column("count", Integer, nullable=False),
    PrimaryKeyConstraint("host", "kind", name="timings_one_each"),
)
