"""Configuration: one TOML file, every key optional, unknown keys refused.

Read from `--config FILE`, `$TORPOR_CONFIG`, or `/etc/torpor/torpor.toml` where that exists.
`docs/reference/configuration.md` lists the keys.
"""

import hashlib
import os
import re
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError, field_validator, model_validator

from torpor.domain.errors import Invalid
from torpor.domain.naming import check_label

DEFAULT_FILE = Path("/etc/torpor/torpor.toml")
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _checked(label: str, what: str) -> str:
    try:
        return check_label(label, what, "it is written into marks of ours")
    except Invalid as error:
        raise ValueError(str(error)) from error


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostConfig(_Section):
    """What this host offers to VMs. What is not given is measured at the daemon's start."""

    name: str = "local"
    vcpus: Positive | None = None
    """Default: the machine's logical CPUs."""
    memory_mb: Positive | None = None
    """Default: the machine's memory less `reserve_mb`."""
    disk_mb: Positive | None = None
    """For disks and saved states. Default: 90 % of what is free below `state_dir`, ours included."""
    states_mb: Positive | None = None
    """The most of `disk_mb` that all saved states together may claim. Default: no limit of their own."""
    reserve_mb: Annotated[int, Field(ge=0)] = 1024
    """Memory that is left to the host itself."""


class QemuConfig(_Section):
    binary: str = "qemu-system-x86_64"
    user: str = "torpor-qemu"
    """Ordinary user that QEMU runs as."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    tb_size_mb: Positive = 64
    """Size of TCG's translation buffer."""
    overhead_mb: Annotated[int, Field(ge=0)] = 128
    """QEMU's own memory, claimed for every instance on top of the guest's."""
    save_threads: Positive = 8
    """Threads that read and write memory at a suspension and at an eager restore."""
    codec: Literal["auto", "none", "lz4", "zstd"] = "auto"
    """How saved memory is packed. `auto`: whichever is soonest done with that memory on this disk with these cores."""
    codec_level: Annotated[int, Field(ge=1, le=22)] = 1
    """zstd: 1 to 22, more packs tighter; lz4: its acceleration, more is faster."""
    restore: Literal["eager", "lazy"] = "eager"
    """`lazy`: a guest runs on at once and its memory is read as it is touched; only what is not packed can be."""


class LibvirtConfig(_Section):
    """For `backend = "libvirt"`."""

    uri: str = "qemu:///system"
    network: str = "torpor"
    """The libvirt network for VMs that Torpor runs; it is made by Torpor. Adopted VMs stay where they are."""
    save_dir: Path = Path("/var/lib/libvirt/qemu/save")
    """Where libvirtd puts managed save images. On the disk whose room counts for saved states."""
    bypass_cache: bool = True
    """Write images past the page cache."""
    save_timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """A save that takes longer is called off; the VM runs on."""
    unplanned_start: Literal["suspend", "leave"] = "suspend"
    """What becomes of a suspended VM that somebody else starts while there is no room for it."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    tb_size_mb: Positive = 64
    """Size of TCG's translation buffer."""
    overhead_mb: Annotated[int, Field(ge=0)] = 128
    """QEMU's own memory, claimed for every VM on top of the guest's."""


class OpenStackConfig(_Section):
    """For `backend = "openstack"`."""

    cloud: str = "torpor"
    """Entry of clouds.yaml: Torpor's service account, in a project of its own."""
    project: str = ""
    """Where servers are made unless `torpor run --project` says otherwise."""
    networks: tuple[str, ...] = ()
    """On which servers are made unless `--network` says otherwise. Default: the project's only one."""
    hosts: tuple[str, ...] = ()
    """Compute hosts (hypervisor hostnames) that count. Default: all."""
    state_room: Literal["placement", "elsewhere"] = "placement"
    """Who guards the room for saved states. `elsewhere`: they lie on another disk than the servers', or the servers'
    disks are volumes; see to it yourself that there is room."""
    act_timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """How long Nova may take to suspend, resume, boot or delete a server."""
    look_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often all servers are looked at."""
    unplanned_start: Literal["suspend", "leave"] = "suspend"
    """What becomes of a suspended server that somebody else resumes while there is no room for it."""
    dns_address: IPv4Address = IPv4Address("127.0.0.91")
    """Where the name server listens. Guests can ask it if it is an address of this machine that they can reach."""


class NetworkSection(_Section):
    namespace: str = "torpor"
    """Network namespace that holds the bridge and the taps (qemu)."""
    interface: str = Field(default="torpor0", max_length=15)
    """The host's link to the guests, with the gateway's address: a veth (qemu), or the bridge (libvirt)."""
    subnet: IPv4Network = IPv4Network("10.91.0.0/24")
    """The first address is the gateway's; the others are the pool."""
    zone: str = "torpor.internal"
    forwarders: tuple[IPv4Address, ...] = ()
    """Upstream DNS servers, asked for names outside the zone. None: such names are refused."""
    nat: bool = False
    """Let guests reach other networks through the host, masqueraded."""
    dhcp: bool = False
    """Lease every instance its address, for images that don't read the config drive (qemu, libvirt)."""

    @field_validator("zone")
    @classmethod
    def _labels(cls, zone: str) -> str:
        for label in zone.split("."):
            try:
                check_label(label, "zone label")
            except Invalid as error:
                raise ValueError(str(error)) from error
        return zone

    @field_validator("subnet")
    @classmethod
    def _room(cls, subnet: IPv4Network) -> IPv4Network:
        if subnet.prefixlen > 29:
            raise ValueError("subnet must be a /29 or larger")
        return subnet

    @property
    def gateway(self) -> str:
        return str(self.subnet.network_address + 1)


Publisher = Literal["dnsmasq", "hosts-file", "rfc2136"]


class HostsFileConfig(_Section):
    """A block of our own in a hosts file that others write as well."""

    path: Path
    """Absolute."""
    ssh: Annotated[str, Field(pattern=r"^[^-\s]\S*$")] | None = None
    """The file is on another machine: `user@host`, as `ssh` takes it. So are pid_file and command then."""
    ssh_config: Path | None = None
    """Another configuration for ssh than root's own."""
    block: str = "torpor"
    """Tells it from the blocks of other Torpors in that file."""
    pid_file: Path | None = None
    """Its process gets SIGHUP after each change."""
    process: str = "dnsmasq"
    """That process's name; a stranger who got its number is left alone."""
    command: tuple[str, ...] = ()
    """Run after each change instead, without a shell."""
    ask: IPvAnyAddress | None = None
    """A server that reads the file: a name counts as published once it answers so."""
    ask_port: Port = 53

    @field_validator("block")
    @classmethod
    def _label(cls, block: str) -> str:
        return _checked(block, "block")

    @model_validator(mode="after")
    def _consistent(self) -> "HostsFileConfig":
        for path in (self.path, self.pid_file, self.ssh_config):
            if path is not None and not path.is_absolute():
                raise ValueError(f"{path} must be an absolute path")
        if self.pid_file and self.command:
            raise ValueError("set pid_file or command, not both")
        return self


class Rfc2136Config(_Section):
    """Signed updates to a name server of somebody else's."""

    server: IPvAnyAddress
    """The primary of the zones."""
    port: Port = 53
    owner: str
    """Marks our names there; no other Torpor that writes to these zones may have the same."""
    key_file: Path
    """The TSIG key, as tsig-keygen writes it."""
    reverse_zones: tuple[str, ...] = ()
    """For PTR records; an address in none of them gets none."""
    ttl: Annotated[int, Field(ge=0, le=86400)] = 0
    """Seconds for which a resolver may tell an old address."""

    @field_validator("owner")
    @classmethod
    def _label(cls, owner: str) -> str:
        return _checked(owner, "owner")

    @field_validator("reverse_zones")
    @classmethod
    def _below_arpa(cls, zones: tuple[str, ...]) -> tuple[str, ...]:
        for zone in zones:
            if not re.fullmatch(r"(\d{1,3}\.){0,4}in-addr\.arpa|([0-9a-f]\.){0,32}ip6\.arpa", zone):
                raise ValueError(f"{zone!r} is no reverse zone; they are like 0.91.10.in-addr.arpa and d.f.ip6.arpa")
        return zones


class NamesSection(_Section):
    """Where hostnames are published."""

    publish: tuple[Publisher, ...] = ("dnsmasq",)
    """`dnsmasq` is the guests' own name server, at the gateway."""
    hosts_file: HostsFileConfig | None = Field(default=None, alias="hosts-file")
    rfc2136: Rfc2136Config | None = None
    networks: tuple[str, ...] = ()
    """Neutron networks whose ports get names, whoever made them (`torpor names serve`)."""
    look_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often they are looked at."""

    @model_validator(mode="after")
    def _complete(self) -> "NamesSection":
        if not self.publish or len(set(self.publish)) != len(self.publish):
            raise ValueError("publish must name each place once, and one at least: dnsmasq, hosts-file, rfc2136")
        for place, section in (("hosts-file", self.hosts_file), ("rfc2136", self.rfc2136)):
            if place in self.publish and section is None:
                raise ValueError(f"publish has {place}, so there must be a section [names.{place}]")
        return self


class PolicyConfig(_Section):
    min_run_seconds: Seconds = 30.0
    """A workload that has just begun to run is no victim before it has run this long."""
    max_victims: Positive = 16
    """A plan that would suspend more workloads than this is refused."""
    stop_grace_seconds: Seconds = 10.0
    """How long a guest may take to shut down before it is stopped by force."""
    boot_grace_seconds: Seconds = 180.0
    """How long a guest may take to have its address before that is reported as a mismatch."""
    max_attempts: Positive = 3
    """Tries to start a workload before it counts as failed."""


class Config(_Section):
    backend: Literal["qemu", "libvirt", "openstack"] = "qemu"
    """`qemu`: VMs of Torpor's own. `libvirt`: a host whose VMs are under libvirt, others' beside Torpor's. `openstack`:
    servers of a cloud, others' beside Torpor's."""
    state_dir: Path = Path("/var/lib/torpor")
    """Disks, saved states, books. On the disk whose speed and room count."""
    run_dir: Path = Path("/run/torpor")
    """The API's socket."""
    host: HostConfig = HostConfig()
    qemu: QemuConfig = QemuConfig()
    libvirt: LibvirtConfig = LibvirtConfig()
    openstack: OpenStackConfig = OpenStackConfig()
    network: NetworkSection = NetworkSection()
    names: NamesSection = NamesSection()
    policy: PolicyConfig = PolicyConfig()
    ssh_authorized_keys: tuple[str, ...] = ()
    """Given to every guest that runs cloud-init."""

    @model_validator(mode="after")
    def _absolute(self) -> "Config":
        for path in (self.state_dir, self.run_dir):
            if not path.is_absolute():
                raise ValueError(f"{path} must be an absolute path")
        return self

    @model_validator(mode="after")
    def _own_network(self) -> "Config":
        if self.network.dhcp and self.backend == "openstack":
            raise ValueError("network.dhcp is for networks of Torpor's own; use `torpor network dhcp` with OpenStack")
        return self

    @property
    def overhead_mb(self) -> int:
        """The hypervisor's own memory, claimed for every VM. Nova has its own way to count it in."""
        return {"qemu": self.qemu.overhead_mb, "libvirt": self.libvirt.overhead_mb, "openstack": 0}[self.backend]

    @property
    def socket(self) -> Path:
        return self.run_dir / "api.sock"

    @property
    def digest(self) -> str:
        """The same for what means the same, however it is written."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def source(file: Path | None = None) -> Path | None:
    """What is read: `file`, $TORPOR_CONFIG, or the default where it is there; None where nothing is."""
    named = file or (Path(os.environ["TORPOR_CONFIG"]) if "TORPOR_CONFIG" in os.environ else None)
    return named or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def load(file: Path | None = None) -> Config:
    """The configuration from its `source`. Raises Invalid."""
    path = source(file)
    if path is None:
        return Config()
    try:
        return Config.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise Invalid(
            f"configuration {path} can't be read", detail=error.strerror or str(error), remedy="check the path"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"configuration {path} is not TOML", detail=str(error), remedy="mend that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Invalid(
            f"configuration {path} is wrong at {key or 'its top'}",
            detail=first["msg"],
            remedy="see docs/reference/configuration.md",
        ) from error
