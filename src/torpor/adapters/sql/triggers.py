"""Triggers that keep the ledger's law, by SQL dialect: `hosts.used_*` is always the sum of the host's claims.

With the CHECKs on `hosts` that makes the database itself refuse an over-commitment, whoever writes to it.
Migrations import these statements, so a released set is never edited: a change is a new set and a
migration that drops the old one. Amounts are added and taken away rather than summed anew: that is
also right where writers are concurrent, as in PostgreSQL, once it gets its entry here.
"""

from collections.abc import Mapping

# What SQLite does otherwise than one would think:
# - it fires no DELETE triggers for rows that REPLACE removes, so replacing is refused;
# - it checks foreign keys only for connections that ask for it, so unknown hosts are refused here as well;
# - `INSERT OR IGNORE` (or FAIL) also ignores a CHECK that fails within a trigger, and the claim would
#   stand uncounted, so room is looked for before; RAISE(ABORT) is obeyed whatever the statement says.
_SQLITE_1 = (
    """
CREATE TRIGGER claims_new BEFORE INSERT ON claims BEGIN
  SELECT RAISE(ABORT, 'that consumer has a claim of that kind; update it')
    WHERE EXISTS (SELECT 1 FROM claims WHERE consumer = NEW.consumer AND kind = NEW.kind);
  SELECT RAISE(ABORT, 'that host is not in the books')
    WHERE NOT EXISTS (SELECT 1 FROM hosts WHERE id = NEW.host);
  SELECT RAISE(ABORT, 'that host has no room for the claim')
    FROM hosts WHERE id = NEW.host AND (
      used_vcpus + NEW.vcpus > total_vcpus
      OR used_memory_mb + NEW.memory_mb > total_memory_mb
      OR used_disk_mb + NEW.disk_mb > total_disk_mb);
END
""",
    """
CREATE TRIGGER claims_changed BEFORE UPDATE ON claims BEGIN
  SELECT RAISE(ABORT, 'a claim keeps its consumer and kind')
    WHERE NEW.consumer <> OLD.consumer OR NEW.kind <> OLD.kind;
  SELECT RAISE(ABORT, 'that host is not in the books')
    WHERE NOT EXISTS (SELECT 1 FROM hosts WHERE id = NEW.host);
  SELECT RAISE(ABORT, 'that host has no room for the claim')
    FROM hosts WHERE id = NEW.host AND (
      used_vcpus + NEW.vcpus - iif(id = OLD.host, OLD.vcpus, 0) > total_vcpus
      OR used_memory_mb + NEW.memory_mb - iif(id = OLD.host, OLD.memory_mb, 0) > total_memory_mb
      OR used_disk_mb + NEW.disk_mb - iif(id = OLD.host, OLD.disk_mb, 0) > total_disk_mb);
END
""",
    """
CREATE TRIGGER claims_inserted AFTER INSERT ON claims BEGIN
  UPDATE hosts SET
    used_vcpus = used_vcpus + NEW.vcpus,
    used_memory_mb = used_memory_mb + NEW.memory_mb,
    used_disk_mb = used_disk_mb + NEW.disk_mb
  WHERE id = NEW.host;
END
""",
    """
CREATE TRIGGER claims_deleted AFTER DELETE ON claims BEGIN
  UPDATE hosts SET
    used_vcpus = used_vcpus - OLD.vcpus,
    used_memory_mb = used_memory_mb - OLD.memory_mb,
    used_disk_mb = used_disk_mb - OLD.disk_mb
  WHERE id = OLD.host;
END
""",
    """
CREATE TRIGGER claims_updated AFTER UPDATE ON claims BEGIN
  UPDATE hosts SET
    used_vcpus = used_vcpus + iif(id = NEW.host, NEW.vcpus, 0) - iif(id = OLD.host, OLD.vcpus, 0),
    used_memory_mb = used_memory_mb + iif(id = NEW.host, NEW.memory_mb, 0) - iif(id = OLD.host, OLD.memory_mb, 0),
    used_disk_mb = used_disk_mb + iif(id = NEW.host, NEW.disk_mb, 0) - iif(id = OLD.host, OLD.disk_mb, 0)
  WHERE id IN (OLD.host, NEW.host);
END
""",
    *(
        f"""
CREATE TRIGGER hosts_used_is_sum_after_{act} AFTER {act.upper()} ON hosts
  WHEN (NEW.used_vcpus, NEW.used_memory_mb, NEW.used_disk_mb) <> (
    SELECT coalesce(sum(vcpus), 0), coalesce(sum(memory_mb), 0), coalesce(sum(disk_mb), 0)
    FROM claims WHERE host = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'what is used of a host is the sum of its claims; change those');
END
"""
        for act in ("insert", "update")
    ),
)

LEDGER_1: Mapping[str, tuple[str, ...]] = {"sqlite": _SQLITE_1}
"""Statements of revision 0001, to be run in this order, by SQLAlchemy dialect name."""
