"""The throwaway Debian that the services run in, made by mmdebstrap from where apt on this machine takes packages."""

import hashlib
import os
import shutil
import string
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.openstack.failure import LabFailed
from lab.openstack.settings import Lab

RELEASE = "bookworm"
"""Its OpenStack is Zed; later ones have no linuxbridge agent, and other traps."""
PACKAGES = (
    *("mariadb-server", "rabbitmq-server", "memcached", "uwsgi-plugin-python3"),
    *("keystone", "glance-api", "placement-api"),
    *("nova-api", "nova-conductor", "nova-scheduler", "nova-compute", "genisoimage"),
    *("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils"),
    *("neutron-server", "neutron-linuxbridge-agent", "neutron-dhcp-agent"),
    *("ipset", "iptables", "ebtables", "conntrack", "dnsmasq-base", "dnsmasq-utils", "iputils-arping"),
    *("python3-openstackclient", "python3-osc-placement"),
    *("iproute2", "iputils-ping", "netcat-openbsd", "tcpdump", "sudo", "procps"),
)
_TEMPLATES = Path(__file__).with_name("etc")
_STAMP = "packages.stamp"
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What is mounted in the root while it is made is nobody else's to see, and is gone whatever happens."""
_WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/bin/py3compile")
"""Without the last, Python compiles what is used when it is used, not thousands of files that never are."""


def make_root(lab: Lab) -> bool:
    """Have the root; whether it had to be made. Raises LabFailed."""
    stamp = lab.folder / _STAMP
    if stamp.exists():
        if stamp.read_text() != _stamp():
            raise LabFailed("the lab was made of other packages: run 'script/lab down --wipe' first")
        return False
    remove_root(lab)
    command = [
        *_ALONE,
        *("mmdebstrap", "--variant=minbase", "--format=directory", f"--include={','.join(PACKAGES)}"),
        *('--aptopt=APT::Sandbox::User "root"', "--dpkgopt=force-unsafe-io"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _WITHOUT),
        *_apt_proxy(),
        *(RELEASE, str(lab.root), *_sources()),
    ]
    log = lab.folder / "mmdebstrap.log"
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            env={**os.environ, "TMPDIR": str(lab.folder)},
        )
    if done.returncode:
        raise LabFailed(f"Debian was not installed into {lab.root}\n{log.read_text(errors='replace')[-2000:]}")
    stamp.write_text(_stamp())
    return True


def remove_root(lab: Lab) -> None:
    """Remove what make_root made. Raises LabFailed while anything is mounted there."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if any(Path(line.split()[4]).is_relative_to(lab.root) for line in mounts):
        raise LabFailed(f"something is mounted below {lab.root}: unmount it first")
    (lab.folder / _STAMP).unlink(missing_ok=True)
    if lab.root.exists():
        shutil.rmtree(lab.root)


def configure(lab: Lab, folder: str, values: Mapping[str, object]) -> None:
    """Put the templates of this folder of etc/ ('.': those in none) into the root, with `values` filled in."""
    source = _TEMPLATES / folder
    for template in sorted(source.glob("*") if folder == "." else source.rglob("*")):
        if template.is_file():
            target = lab.inside(f"etc/{template.relative_to(_TEMPLATES)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(string.Template(template.read_text()).substitute(values))
            target.chmod(template.stat().st_mode & 0o777)


def template_folders() -> list[str]:
    return [".", *sorted(entry.name for entry in _TEMPLATES.iterdir() if entry.is_dir())]


def versions(lab: Lab) -> dict[str, str]:
    """Version by package, of those that the lab was made of."""
    listing = subprocess.run(
        ["dpkg-query", f"--admindir={lab.inside('var/lib/dpkg')}", "-W", "-f=${Package} ${Version}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return dict(line.split() for line in listing.splitlines())


def _sources() -> list[str]:
    """This machine's own sources of the release, as lines for mmdebstrap."""
    listing = subprocess.run(
        [
            *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
            *("Created-By: Packages", "Origin: Debian"),
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    sources = [line for line in listing.splitlines() if line.split()[2].split("-")[0] == RELEASE]
    if not sources:
        raise LabFailed(f"apt knows no Debian {RELEASE}: use a machine that has it, or run 'apt-get update'")
    return sources


def _apt_proxy() -> list[str]:
    show = ["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]
    proxy = subprocess.run(show, capture_output=True, text=True, check=False).stdout.strip()
    return [f'--aptopt=Acquire::http::Proxy "{proxy}"'] if proxy else []


def _stamp() -> str:
    return hashlib.sha256(" ".join([RELEASE, *PACKAGES]).encode()).hexdigest() + "\n"
