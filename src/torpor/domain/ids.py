"""Identifiers, one type each, so that they can't be mixed up."""

from typing import NewType

HostId = NewType("HostId", str)
"""Name of a host, unique within one Torpor."""

WorkloadId = NewType("WorkloadId", str)
"""UUID4 in its 36-character text form."""

InstanceId = NewType("InstanceId", str)
"""UUID4 in its 36-character text form; also the VM's SMBIOS UUID and its cloud-init instance id."""

OperationId = NewType("OperationId", str)
"""UUID4 in its 36-character text form."""
