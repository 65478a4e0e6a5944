"""Events: what happened."""

from pydantic import BaseModel

from torpor.ports import Event


class EventSchema(BaseModel):
    at: float
    kind: str
    subject: str
    message: str

    @classmethod
    def of(cls, event: Event) -> "EventSchema":
        return cls(at=event.at, kind=event.kind, subject=event.subject, message=event.message)


class EventsSchema(BaseModel):
    events: list[EventSchema]
    """Oldest first."""
