"""States on disk, as the port tells of them."""

import threading
from pathlib import Path

from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.state_files import Generation, StateFiles
from torpor.domain.ids import InstanceId


def test_a_state_that_is_removed_while_states_are_looked_at_is_left_out(tmp_path: Path) -> None:
    """The engine removes older states while somebody asks for them all."""
    files = StateFiles(InstanceFolder(InstanceId("8f8b2c52-6d9c-4c0e-9a1e-8c8f6a6b3d55"), tmp_path))
    newest = tmp_path / "states" / "1000"
    newest.mkdir(parents=True)
    over = threading.Event()

    def replace_older_ones() -> None:
        for number in range(1, 300):
            older = tmp_path / "states" / str(number)
            older.mkdir()
            (older / "device").write_bytes(b"x")
            files.remove(Generation(number, older))
        over.set()

    remover = threading.Thread(target=replace_older_ones)
    remover.start()
    while not over.is_set():
        assert files.saved_states()[0].generation == 1000
    remover.join()
