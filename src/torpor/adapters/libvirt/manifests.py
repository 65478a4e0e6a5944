"""What Torpor notes of every managed save image: one small file a generation, written whole or not at all."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torpor.adapters.libvirt.managed_saves import Identity
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Mechanism, SavedState, StateStatus
from torpor.files import sync_folder, write_durably

log = logging.getLogger(__name__)

BEGUN = "begun"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """One saved state. Of a spent one nothing is left but this."""

    generation: int
    status: StateStatus
    created_at: float
    image: str
    """Path of the file."""
    identity: Identity
    checksum: str
    """xxh3_128, hex; empty for an image that others wrote."""
    stored_bytes: int
    memory_bytes: int
    image_format: str
    """As qemu.conf calls it."""
    libvirt: int
    """Version, as libvirt counts: major * 1,000,000 + minor * 1,000 + release."""
    restored: str = ""
    """Which process was filled from it, as `Processes.identity` has it; BEGUN while that is not known yet."""

    @property
    def spent(self) -> bool:
        return self.status is StateStatus.SPENT

    def saved_state(self, instance: InstanceId) -> SavedState:
        """For the port."""
        stored = 0 if self.spent else self.stored_bytes
        return SavedState(
            instance, self.generation, Mechanism.STREAM, self.status, self.created_at, stored, self.memory_bytes,
            written_bytes=self.stored_bytes,
        )  # fmt: skip


class Manifests:
    """Those of one instance, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> Sequence[Manifest]:
        """Newest first."""
        try:
            names = [path.stem for path in self._folder.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return ()
        return [self._read(number) for number in sorted(map(int, filter(str.isdigit, names)), reverse=True)]

    def write(self, manifest: Manifest) -> None:
        """Durable on return; in place of an earlier one of that generation."""
        for folder in (self._folder.parent.parent.parent, self._folder.parent.parent, self._folder.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        body = json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=1)
        write_durably(self._file(manifest.generation), body.encode())
        sync_folder(self._folder.parent)
        sync_folder(self._folder.parent.parent)

    def remove(self, generation: int) -> None:
        """Converges."""
        self._file(generation).unlink(missing_ok=True)
        if self._folder.is_dir():
            sync_folder(self._folder)

    def sweep(self) -> None:
        """Remove what was left half written."""
        if self._folder.is_dir():
            for partial in self._folder.glob(".*.partial"):
                partial.unlink(missing_ok=True)

    def _file(self, generation: int) -> Path:
        return self._folder / f"{generation}.json"

    def _read(self, generation: int) -> Manifest:
        file = self._file(generation)
        try:
            fields = json.loads(file.read_bytes())
            if fields.pop("format") != _FORMAT:
                raise ValueError("it has another format")
            identity, status = Identity(**fields.pop("identity")), StateStatus(fields.pop("status"))
            return Manifest(**fields, identity=identity, status=status)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # The image beside it is then taken as one that others made: checked for being whole, not bit by bit.
            log.warning("manifest %s of a saved state is damaged: %s", file, error)
            unknown = Identity(-1, -1, "")
            return Manifest(generation, StateStatus.WHOLE, 0.0, "", unknown, "", 0, 0, "", 0)
