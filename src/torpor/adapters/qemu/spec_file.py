"""What an instance was booted with, kept beside it: all that is known of it after a restart of the daemon."""

import json
from dataclasses import asdict
from pathlib import Path

from torpor.domain.errors import BackendFailed
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor
from torpor.files import write_durably


def write_spec(path: Path, spec: InstanceSpec) -> None:
    """Durable on return. Raises OSError."""
    write_durably(path, json.dumps(asdict(spec), indent=1).encode())


def read_spec(path: Path) -> InstanceSpec:
    """Raises BackendFailed."""
    try:
        fields = json.loads(path.read_bytes())
        network = NetworkConfig(**{**fields["network"], "dns": tuple(fields["network"]["dns"])})
        return InstanceSpec(
            **{
                **fields,
                "flavor": Flavor(**fields["flavor"]),
                "network": network,
                "meta": tuple((key, value) for key, value in fields["meta"]),
                "ssh_keys": tuple(fields["ssh_keys"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendFailed(f"{path}, which says what the instance is, can't be read", detail=str(error)) from error
