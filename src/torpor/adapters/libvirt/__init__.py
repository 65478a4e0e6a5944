"""The libvirt backend: VMs of a host that Torpor shares with whoever else uses its libvirt.

A saved state is libvirt's own managed save image, so any tool that starts the domain takes it up. It must never touch a
domain that carries no mark of Torpor's, never remove an image that nothing has run on from, and never erase a domain
that it did not make. Importing `backend` or `connection` needs the libvirt binding; the rest of the package does not.
"""

from torpor.adapters.libvirt.settings import LibvirtSettings

__all__ = ["LibvirtSettings"]
