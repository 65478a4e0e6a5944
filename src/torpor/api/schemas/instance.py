"""Instances and their saved states."""

from pydantic import BaseModel

from torpor.api.schemas.problem import ProblemSchema
from torpor.domain.instance import AddressState, BackendState, Codec, Mechanism, SavedState, StateStatus
from torpor.engine.views import InstanceView


class SavedStateSchema(BaseModel):
    generation: int
    mechanism: Mechanism
    status: StateStatus
    created_at: float
    stored_bytes: int
    """Room on disk; what several states share counts at the oldest."""
    memory_bytes: int
    """Guest memory in it."""
    written_bytes: int
    """What its own save had to write of the memory."""
    codec: Codec
    base: int | None
    """Generation whose memory it shares; null where it holds all of its memory itself."""

    @classmethod
    def of(cls, state: SavedState) -> "SavedStateSchema":
        return cls(
            generation=state.generation,
            mechanism=state.mechanism,
            status=state.status,
            created_at=state.created_at,
            stored_bytes=state.stored_bytes,
            memory_bytes=state.memory_bytes,
            written_bytes=state.written_bytes,
            codec=state.codec,
            base=state.base,
        )


class InstanceSchema(BaseModel):
    id: str
    name: str
    fqdn: str
    index: int
    address: str
    mac: str
    host: str | None
    backend_state: BackendState
    address_state: AddressState
    address_detail: str
    pid: int | None
    resident_bytes: int
    """Host memory that holds guest memory now."""
    process_bytes: int
    """Host memory of the hypervisor process, page cache not counted."""
    exit_code: int | None
    """Of the workload's command in this guest, once it has finished."""
    console_log: str
    problem: ProblemSchema | None
    clock_off_seconds: float | None
    """By how much the guest's clock was behind the host's right after it last ran on from a saved state."""
    clock_detail: str
    """How that came about."""
    states: list[SavedStateSchema]
    """Newest first."""

    @classmethod
    def of(cls, view: InstanceView) -> "InstanceSchema":
        instance = view.instance
        return cls(
            id=instance.id,
            name=instance.name,
            fqdn=view.fqdn,
            index=instance.index,
            address=instance.address,
            mac=instance.mac,
            host=instance.host,
            backend_state=view.backend_state,
            address_state=instance.address_state,
            address_detail=instance.address_detail,
            pid=view.pid,
            resident_bytes=view.resident_bytes,
            process_bytes=view.process_bytes,
            exit_code=instance.exit_code,
            console_log=view.console_log,
            problem=ProblemSchema.maybe(instance.problem),
            clock_off_seconds=instance.clock_off,
            clock_detail=instance.clock_detail,
            states=[SavedStateSchema.of(state) for state in view.states],
        )
