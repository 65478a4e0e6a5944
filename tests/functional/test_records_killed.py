"""What a method has returned from is still there when its process is killed."""

import subprocess
import sys
from pathlib import Path

from torpor.adapters.sql import Database, SqlJournal
from torpor.domain.operation import StepStatus

WRITER = """
import sys
from pathlib import Path
from torpor.adapters.sql import open_records
from torpor.domain.operation import Operation, OperationKind, Step, StepKind, StepStatus

_, journal, _, _ = open_records(Path(sys.argv[1]))
steps = tuple(Step(n, StepKind.SAVE) for n in range(100_000))
journal.begin(Operation("op", OperationKind.SUSPEND, "w", "batch", "killed on purpose", steps, 1.0))
for step in steps:
    journal.intend("op", step.index, 2.0)
    print(step.index, flush=True)
    journal.record("op", step.index, StepStatus.DONE, 3.0)
"""


def test_every_intent_that_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 40:
            writer.kill()
            break
    acknowledged = max([40, *(int(line) for line in writer.stdout)])
    writer.wait()

    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    (operation,) = SqlJournal(database).open()
    statuses = [step.status for step in operation.steps]
    assert set(statuses[:acknowledged]) == {StepStatus.DONE}
    assert statuses[acknowledged] in (StepStatus.INTENDED, StepStatus.DONE)
    assert set(statuses[acknowledged + 2 :]) == {StepStatus.PENDING}
    database.close()
