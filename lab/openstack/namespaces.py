"""The namespaces that the lab's processes live in: made, entered, looked into, and ended with all that is in them."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from lab.openstack.failure import LabFailed
from lab.openstack.settings import Lab

_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONWARNINGS": "ignore",
}
_SPAWN = 'setsid "$@" >>/var/log/lab/$0.log 2>&1 </dev/null & echo $! >/run/lab/$0.pid'
_MARK = "torpor-lab"
_LISTENING = "0A"
_START_SECONDS = 30.0
_END_SECONDS = 30.0


class Cell:
    """The lab's namespaces, known by their first process's arguments, never by a pid that was once written down."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._first: psutil.Process | None = None

    @property
    def first(self) -> psutil.Process | None:
        """Their first process, or None while there is none."""
        if self._first is None or not self._first.is_running():
            mark = [_MARK, str(self._lab.root)]
            running = psutil.process_iter(["cmdline"])
            self._first = next((p for p in running if (p.info["cmdline"] or [])[-2:] == mark), None)
        return self._first

    def start(self) -> None:
        """Make them, and a cable to this machine. Raises LabFailed."""
        if self.first:
            return
        self._lab.inside("var/log/lab").mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("first_process")
        with (self._lab.folder / "first_process.log").open("wb") as log:
            process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "--fork", "bash", str(script), str(self._lab.root), self._lab.hostname],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + _START_SECONDS
        while not self.first:
            if process.poll() is not None or time.monotonic() > give_up:
                said = (self._lab.folder / "first_process.log").read_text(errors="replace")
                raise LabFailed(f"the lab's namespaces were not made\n{said}")
            time.sleep(0.05)
        self._connect()

    def end(self) -> None:
        """End every process in them; the namespaces, mounts and interfaces go with the last one."""
        if self.first is None:
            return
        inside = self.processes()
        self.first.kill()
        psutil.wait_procs(inside, timeout=_END_SECONDS)
        # The kernel would remove it too, but in its own time, and the name may be wanted at once.
        subprocess.run(["ip", "link", "delete", self._lab.interface], capture_output=True, check=False)
        self._first = None

    def processes(self) -> list[psutil.Process]:
        """Every process in them, as this machine sees it."""
        here = _pid_namespace(self._pid)
        return [process for process in psutil.process_iter() if _pid_namespace(process.pid) == here]

    def run(self, *command: str, given: str = "", seconds: float = 600.0) -> str:
        """Output of a command inside, with `given` as its input. Raises LabFailed with what it said."""
        done = subprocess.run(
            self._entering(command, {}), input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise LabFailed(f"{' '.join(command[:3])} failed in the lab\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def enter(self, command: tuple[str, ...]) -> int:
        """Run a command inside on the terminal that we have; its exit status."""
        return subprocess.run(self._entering(command, {"TERM": "linux"}), check=False).returncode

    def spawn(self, name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Start what is to run on: its output goes to /var/log/lab/NAME.log, its pid there to /run/lab/NAME.pid."""
        subprocess.run(self._entering(("sh", "-c", _SPAWN, name, *command), environment), check=True)

    def pid(self, name: str) -> int | None:
        """Inside, of what was spawned by this name; None if it does not run."""
        try:
            pid = int(self.seen("/run/lab", f"{name}.pid").read_text())
            state = self.seen("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else pid

    def listens(self, port: int) -> bool:
        """Whether anybody inside listens on this TCP port."""
        rows = Path(f"/proc/{self._pid}/net/tcp").read_text().splitlines()[1:]
        rows += Path(f"/proc/{self._pid}/net/tcp6").read_text().splitlines()[1:]
        return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == _LISTENING for row in rows)

    def seen(self, *path: str) -> Path:
        """A file as the processes see it, where this machine finds it while they are there."""
        return Path(f"/proc/{self._pid}/root", *(part.lstrip("/") for part in path))

    @property
    def _pid(self) -> int:
        if self.first is None:
            raise LabFailed("the lab is down")
        return self.first.pid

    def _entering(self, command: tuple[str, ...], environment: Mapping[str, str]) -> list[str]:
        variables = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **environment}.items()]
        return ["nsenter", f"--target={self._pid}", *_NAMESPACES, "env", "-i", *variables, *command]

    def _connect(self) -> None:
        lab, pid = self._lab, str(self._pid)
        theirs = ("nsenter", f"--target={pid}", "--net")
        for command in (
            ("ip", "link", "add", lab.interface, "type", "veth", "peer", "name", "eth0", "netns", pid),
            ("ip", "address", "add", f"{lab.machine_address}/{lab.prefix}", "dev", lab.interface),
            ("ip", "link", "set", lab.interface, "up"),
            (*theirs, "ip", "address", "add", f"{lab.address}/{lab.prefix}", "dev", "eth0"),
            (*theirs, "ip", "link", "set", "eth0", "up"),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                self.end()
                raise LabFailed(f"the cable to the lab was not made: {' '.join(command)}\n{done.stderr}")


def _pid_namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
