"""A real Ceph object store on this machine: monitor, OSD and S3 gateway with TLS, and two users that share nothing.

`CephRig()` is a context manager. Its data is in memory, or on a sparse file with `on_disk=True`; all of it is gone at
the end. The gateway listens with TLS alone, as those of the services do. Root is needed, as by Ceph's own daemons.

    python -m tests.rigs.ceph COMMAND...        a command that finds such a store in its AWS_* variables
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.rigs.ceph_conf import CephPorts, ceph_conf
from tests.rigs.certificates import Authority
from tests.rigs.daemons import SYSTEM_PATH, Rig, free_ports

Certificate = Literal["good", "expired", "wrong-name"]

_CLIENT_SECONDS = 60
_NEEDED = {
    "ceph-mon": ("ceph-mon", "monmaptool"),
    "ceph-osd": ("ceph-osd",),
    "radosgw": ("radosgw", "radosgw-admin"),
    "ceph-common": ("ceph", "ceph-authtool"),
}
_ALL = ("mon", "allow *", "osd", "allow *", "mgr", "allow *", "mds", "allow *")
_KEYS = {
    "admin": ("client.admin", _ALL),
    "osd": ("osd.0", ("mon", "allow profile osd", "osd", "allow *")),
    "rgw": ("client.rgw.a", ("mon", "allow rwx", "osd", "allow rwx")),
}


def missing_packages() -> str | None:
    """The command that installs what is missing here; None where nothing is."""
    lacking = [name for name, programs in _NEEDED.items() if not all(map(_has, programs))]
    return f"apt-get install --no-install-recommends {' '.join(lacking)}" if lacking else None


def _has(program: str) -> bool:
    return shutil.which(program, path=SYSTEM_PATH) is not None


@dataclass(frozen=True)
class User:
    """A user of the gateway, who owns its buckets alone."""

    name: str
    access_key: str
    secret_key: str


class CephRig(Rig):
    """A running Ceph. `endpoint` is its S3 gateway, `ca_file` signs its certificate, `users` are two."""

    def __init__(self, *, on_disk: bool = False, gib: int = 2) -> None:
        super().__init__("ceph", "CEPH")
        self.ports = CephPorts(*free_ports(3))
        self.endpoint = f"https://localhost:{self.ports.gateway}"
        self.users = tuple(User(name, f"RIGKEY{name.upper()}0", f"hush-{uuid.uuid4().hex}") for name in "ab")
        self._on_disk, self._gib = on_disk, gib

    def _start(self) -> None:
        self._write_files()
        self._start_monitor()
        self._start_osd()
        self.start_gateway()
        for user in self.users:
            keys = (f"--access-key={user.access_key}", f"--secret-key={user.secret_key}")
            self.admin("user", "create", f"--uid={user.name}", f"--display-name=user {user.name}", *keys)

    @property
    def ca_file(self) -> Path:
        return self._authority.ca_file

    @property
    def variables(self) -> dict[str, str]:
        """What S3 clients read, for the first of the users."""
        user = self.users[0]
        keys = {"AWS_ACCESS_KEY_ID": user.access_key, "AWS_SECRET_ACCESS_KEY": user.secret_key}
        return keys | {"AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_CA_BUNDLE": str(self.ca_file)}

    def admin(self, *words: str) -> object:
        """`radosgw-admin WORDS`, and what it answers, where that is JSON."""
        answer = self._call("radosgw-admin", *self._as("client.admin", "admin"), *words)
        return json.loads(answer) if answer.lstrip().startswith(("{", "[")) else None

    def set_quota(self, user: User, *, mib: int | None) -> None:
        """How much a user may store in all buckets; None: as much as there is room for."""
        scope = ("--quota-scope=user", f"--uid={user.name}")
        self.admin("quota", "set", *scope, f"--max-size={-1 if mib is None else mib << 20}")
        self.admin("quota", "disable" if mib is None else "enable", *scope)

    def start_gateway(self) -> None:
        self._daemons.start("rgw", "radosgw", "-f", *self._as("client.rgw.a", "rgw"))
        self._daemons.await_("the gateway", self._answers, 60)

    def kill_gateway(self) -> None:
        """As a crash would: what it was doing is lost, what it had finished is stored."""
        self._daemons.stop("rgw", signal.SIGKILL)

    def freeze(self) -> None:
        """The disks stop: requests that touch them get no answer until `thaw`."""
        self._daemons.signal("osd", signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemons.signal("osd", signal.SIGCONT)

    def use_certificate(self, name: Certificate) -> None:
        """Restart the gateway with another certificate."""
        self._daemons.stop("rgw")
        self._install_certificate(name)
        self.start_gateway()

    def _install_certificate(self, name: Certificate) -> None:
        for ending in ("crt", "key"):
            shutil.copy(self.state / f"{name}.{ending}", self.state / f"server.{ending}")

    def _answers(self) -> bool:
        """Whether TLS is spoken at the gateway's port, whatever the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection(("127.0.0.1", self.ports.gateway), 2) as plain, context.wrap_socket(plain):
                return True
        except OSError:
            return False

    def _write_files(self) -> None:
        for folder in ("mon", "osd", "run"):
            (self.state / folder).mkdir()
        self._fsid, self._osd_id = str(uuid.uuid4()), str(uuid.uuid4())
        conf = ceph_conf(self.state, self._fsid, self.ports, on_disk=self._on_disk, gib=self._gib)
        (self.state / "ceph.conf").write_text(conf)
        self._authority = Authority(self.state)
        self._authority.make_servers()
        self._install_certificate("good")
        self._make_keys()

    def _make_keys(self) -> None:
        """All of them before the monitor's first start: then nobody need be authorised afterwards."""
        mon = self.state / "mon.keyring"
        self._call("ceph-authtool", "-C", mon, "-n", "mon.", "--gen-key", "--cap", "mon", "allow *")
        for name, (entity, rights) in _KEYS.items():
            caps = [word for who, may in zip(rights[::2], rights[1::2], strict=True) for word in ("--cap", who, may)]
            keyring = self.state / f"{name}.keyring"
            self._call("ceph-authtool", "-C", keyring, "-n", entity, "--gen-key", *caps)
            self._call("ceph-authtool", mon, "--import-keyring", keyring)

    def _start_monitor(self) -> None:
        monmap, addresses = self.state / "monmap", self.ports.monitor_addresses
        self._call("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", addresses, monmap)
        mon = ("-c", self.state / "ceph.conf", "-i", "a")
        self._call("ceph-mon", *mon, "--mkfs", "--monmap", monmap, "--keyring", self.state / "mon.keyring")
        self._daemons.start("mon", "ceph-mon", "-f", *mon)

    def _start_osd(self) -> None:
        osd = ("-c", self.state / "ceph.conf", "-i", "0", "-k", self.state / "osd.keyring")
        make = ("--mkfs", "--osd-uuid", self._osd_id, "--monmap", self.state / "monmap")
        self._call("ceph-osd", *osd, *make)
        self._call("ceph", *self._as("client.admin", "admin"), "osd", "new", self._osd_id, "0")
        self._daemons.start("osd", "ceph-osd", "-f", *osd)

    def _as(self, entity: str, keyring: str) -> tuple[str | Path, ...]:
        return ("-c", self.state / "ceph.conf", "-n", entity, "-k", self.state / f"{keyring}.keyring")

    def _call(self, *command: str | Path) -> str:
        answer = subprocess.run(
            [str(word) for word in command],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
        )
        if answer.returncode != 0:
            raise RuntimeError(f"{command[0]}: {answer.stderr}\n{self._daemons.last_words()}")
        return answer.stdout


def main() -> int:
    with CephRig(gib=8) as rig:
        return subprocess.run(sys.argv[1:], env=os.environ | rig.variables).returncode


if __name__ == "__main__":
    sys.exit(main())
