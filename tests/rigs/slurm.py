"""A real Slurm on this machine, in the shape of a described cluster. Its state is volatile; no other Slurm is touched.

`SlurmRig(shape)` starts the controller alone: `sbatch --test-only` judges jobs as the site would, at full size.
With `live=True` every node is a slurmd in namespaces of its own (host name, processes, mounts, network), and jobs
run; that needs root. With `accounting=True` there are accounts and qualities of service, in slurmdbd and a MariaDB.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.rigs.daemons import SYSTEM_PATH, Rig, free_ports
from tests.rigs.network import GATEWAY, Network, address, inside
from tests.rigs.shape import Shape
from tests.rigs.slurm_conf import Ports, gres_conf, sacctmgr_commands, slurm_conf, slurmdbd_conf

_CLIENT_SECONDS = 30  # a client of Slurm may wait for ever: none of ours does
_NEEDED = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch"),
    "munge": ("munged",),
    "util-linux": ("unshare", "setpriv"),
    "iproute2": ("ip",),
}
_NEEDED_FOR_ACCOUNTING = {"slurmdbd": ("slurmdbd",), "mariadb-server": ("mariadbd", "mariadb-install-db")}

# A node: its own host name, processes, mounts and network. Bash stays as the first process, reaps what is orphaned, and
# outlives slurmd: the steps do too, as on a real node.
_NODE = """
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mkdir -p "$2/tmp-of/$1" && mount --bind "$2/tmp-of/$1" "$2/tmp"
until ip link set hsn0 up 2>/dev/null; do sleep 0.02; done
ip address add "$3/24" dev hsn0
ip link set lo up
slurmd -D -N "$1" || true
while :; do sleep 3600 & wait; done
"""


def missing_packages(*, accounting: bool = False) -> str | None:
    """The command that installs what is missing here; None where nothing is."""
    needed = _NEEDED | (_NEEDED_FOR_ACCOUNTING if accounting else {})
    lacking = [
        package for package, names in needed.items() if not all(shutil.which(name, path=SYSTEM_PATH) for name in names)
    ]
    return f"apt-get install --no-install-recommends {' '.join(lacking)}" if lacking else None


class SlurmRig(Rig):
    """A running Slurm, as a context manager. Programs find it by `environ`."""

    def __init__(self, shape: Shape, *, live: bool = False, accounting: bool = False) -> None:
        super().__init__("slurm", "SLURM", "SBATCH")
        self.environ["SLURM_CONF"] = str(self.state / "slurm.conf")
        self.shape, self._live, self._accounting = shape, live, accounting
        controller, dbd, database, *nodes = free_ports(3 + (shape.nodes if live else 0))
        self._ports = Ports(controller, dbd, database, tuple(nodes))
        self._network = Network()

    def _start(self) -> None:
        if self._live:
            self._network.enter()
        self._write_files()
        self._start_munge()
        if self._accounting:
            self._start_accounting()
        self._start_controller()
        if self._live:
            self._start_nodes()

    def call(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """One command against this Slurm, within a bounded time."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
        )

    def accepts(self, script: Path, *options: str) -> str | None:
        """None where `sbatch --test-only` takes the script, else its words."""
        answer = self.call("sbatch", "--test-only", *options, str(script))
        return None if answer.returncode == 0 else answer.stderr.strip()

    def job_state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, ..."""
        return self._of_job(job, "JobState")

    def job_exit_code(self, job: str) -> int:
        return int(self._of_job(job, "ExitCode").split(":")[0])

    def wait_for_job(self, job: str, *states: str, seconds: float = 60.0) -> None:
        """Until the job is in one of the states."""
        self._daemons.await_(f"job {job} in {states}", lambda: self.job_state(job) in states, seconds)

    def kill_node(self, name: str) -> None:
        """As a power cut would: slurmd, steps and ranks of the node end at once."""
        self._daemons.stop(name, signal.SIGKILL)

    def kill_slurmd(self, name: str) -> None:
        """The node's daemon alone: what runs there goes on, and Slurm loses sight of it."""
        [slurmd] = [pid for pid in _processes("slurmd", "-D", "-N", name) if self._is_ours(pid)]
        os.kill(slurmd, signal.SIGKILL)

    def cut_off(self, name: str) -> None:
        """The node's network: packets to and from it vanish, and everything on it goes on."""
        self._network.unplug(self._number(name))

    def connect_again(self, name: str) -> None:
        self._network.plug(self._number(name))

    def start_node(self, name: str) -> None:
        """(Re)boot a node."""
        number = self._number(name)
        process = self._daemons.start(
            name,
            *("unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-c", _NODE, "node", name, self.state, address(number)),
        )
        self._daemons.await_(f"the network of {name}", lambda: inside(process))
        self._network.connect(number, process)

    def _number(self, name: str) -> int:
        return self.shape.node_names().index(name) + 1

    def _is_ours(self, process: int) -> bool:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return os.fsencode(f"SLURM_CONF={self.environ['SLURM_CONF']}") in variables

    def await_idle(self) -> None:
        """Until every node takes jobs."""
        self._daemons.await_("all nodes idle", self._all_idle)

    def _of_job(self, job: str, key: str) -> str:
        words = self.call("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return next((word.removeprefix(f"{key}=") for word in words if word.startswith(f"{key}=")), "UNKNOWN")

    def _write_files(self) -> None:
        for folder in ("munge", "controller", "spool", "tmp"):
            (self.state / folder).mkdir()
        self.state.chmod(0o755)
        nodes = [f"{address(number)} {name}" for number, name in enumerate(self.shape.node_names(), 1) if self._live]
        hosts = ["127.0.0.1 localhost", f"{GATEWAY} {socket.gethostname()}", *nodes]
        texts = {
            "slurm.conf": slurm_conf(self.shape, self.state, self._ports, live=self._live, accounting=self._accounting),
            "gres.conf": gres_conf(self.shape),
            "slurmdbd.conf": slurmdbd_conf(self.state, self._ports),
            "hosts": "\n".join(hosts) + "\n",
            "job_submit.lua": self.shape.words.submit_filter if self.shape.words else "",
        }
        for name, text in texts.items():
            (self.state / name).write_text(text)
        (self.state / "slurmdbd.conf").chmod(0o600)
        (self.state / "munge" / "key").write_bytes(os.urandom(1024))
        (self.state / "munge" / "key").chmod(0o600)

    def _start_munge(self) -> None:
        folder = self.state / "munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        self._daemons.start("munged", "munged", "--foreground", "--force", *options)
        self._daemons.await_("munged", (folder / "socket").is_socket)

    def _start_controller(self) -> None:
        self._daemons.start("slurmctld", "slurmctld", "-D", "-c")
        self._daemons.await_("slurmctld", lambda: "is UP" in self.call("scontrol", "ping").stdout)

    def _start_nodes(self) -> None:
        for name in self.shape.node_names():
            (self.state / "spool" / name).mkdir()
            self.start_node(name)
        self.await_idle()

    def _all_idle(self) -> bool:
        states = self.call("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.splitlines()
        return {tuple(state.split()) for state in states} == {(name, "idle") for name in self.shape.node_names()}

    def _start_accounting(self) -> None:
        folder, endpoint = self.state / "database", self.state / "database.socket"
        self.call("mariadb-install-db", "--no-defaults", f"--datadir={folder}", "--skip-test-db", *_database_user())
        self._daemons.start(
            "mariadbd",
            *("mariadbd", "--no-defaults", f"--datadir={folder}", f"--socket={endpoint}", *_database_user()),
            *("--bind-address=127.0.0.1", f"--port={self._ports.database}", f"--pid-file={self.state}/mariadbd.pid"),
            *("--skip-name-resolve", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"),
        )
        self._daemons.await_("mariadbd", lambda: self._query(endpoint, "select 1"))
        self._query(endpoint, "create database slurm_acct_db; create user slurm@'127.0.0.1' identified by 'rig'")
        self._query(endpoint, "grant all on slurm_acct_db.* to slurm@'127.0.0.1'")
        self._daemons.start("slurmdbd", "slurmdbd", "-D")
        self._daemons.await_("slurmdbd", lambda: self.call("sacctmgr", "show", "cluster").returncode == 0)
        for words in sacctmgr_commands(self.shape):
            answer = self.call("sacctmgr", "--immediate", *words)
            if answer.returncode != 0 and "Nothing" not in answer.stdout:
                raise RuntimeError(f"sacctmgr {' '.join(words)}: {answer.stdout}{answer.stderr}")

    def _query(self, endpoint: Path, text: str) -> bool:
        return self.call("mariadb", "--no-defaults", f"--socket={endpoint}", f"--execute={text}").returncode == 0

    def _down(self) -> None:
        super()._down()
        self._network.leave()


def _processes(*words: str) -> Iterator[int]:
    """Those with just these arguments."""
    wanted = b"".join(word.encode() + b"\0" for word in words)
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if file.read_bytes() == wanted:
                yield int(file.parent.name)


def _database_user() -> list[str]:
    """MariaDB wants to be told that it may run as root."""
    return ["--user=root"] if os.getuid() == 0 else []
