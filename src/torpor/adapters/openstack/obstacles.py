"""Servers that could be suspended and not brought back, or whose room could not be given to others."""

from collections.abc import Mapping

_FLAVOR = {
    "hw:cpu_policy": "its vCPUs are pinned to the host's",
    "hw:numa_nodes": "it has a NUMA topology of its own",
    "hw:mem_page_size": "its memory is in pages that the host sets aside",
    "pci_passthrough:alias": "it has a PCI device of the host's",
    "hw:mem_encryption": "its memory is encrypted (SEV)",
    "hw:tpm_version": "it has a virtual TPM",
    "hw:pmem": "it has persistent memory of the host's",
    "resources:VGPU": "it has a virtual GPU",
}
_IMAGE = {
    "hw_cpu_policy": "hw:cpu_policy",
    "hw_numa_nodes": "hw:numa_nodes",
    "hw_mem_page_size": "hw:mem_page_size",
    "hw_mem_encryption": "hw:mem_encryption",
    "hw_tpm_version": "hw:tpm_version",
    "hw_pmem": "hw:pmem",
}
"""Properties of images that say the same."""
_HARMLESS = {"hw:cpu_policy": ("shared",), "hw:mem_page_size": ("small", "any"), "hw:mem_encryption": ("false", "no")}


def obstacle(flavor_specs: Mapping[str, str], image_properties: Mapping[str, object]) -> str:
    """Why such a server is left alone; empty where nothing speaks against it."""
    said = {**{key: image_properties[name] for name, key in _IMAGE.items() if name in image_properties}, **flavor_specs}
    for key, why in _FLAVOR.items():
        value = str(said.get(key, "")).lower()
        if value and value not in _HARMLESS.get(key, ()):
            return f"{why} ({key}={value})"
    return ""
