"""What goes over the wire: pydantic models, made from the engine's views.

Field names carry their unit (`_mb` MiB, `_bytes`, `_seconds`); times are seconds since the epoch, UTC.
Within version 1 fields are added, never renamed or removed. It must never be imported by the engine.
"""
