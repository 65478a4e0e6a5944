"""The daemon itself."""

from pydantic import BaseModel, ConfigDict


class HealthSchema(BaseModel):
    status: str
    """`ok` once requests are served; before that nothing answers."""
    version: str
    pid: int
    started_at: float
    configuration: str
    """Digest of the one that it was started with."""


class ShutdownBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    network: bool = False
    """Take the name server and the network down too; refused while a VM runs."""


class AcknowledgedSchema(BaseModel):
    """What was asked for has begun."""

    accepted: bool = True
