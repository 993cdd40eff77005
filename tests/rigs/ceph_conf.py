"""ceph.conf of a cluster of one monitor, one OSD and one gateway, for tests: small, quick to start, on loopback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib")


@dataclass(frozen=True)
class CephPorts:
    gateway: int
    monitor: int
    monitor_v1: int

    @property
    def monitor_addresses(self) -> str:
        return f"[v2:127.0.0.1:{self.monitor},v1:127.0.0.1:{self.monitor_v1}]"


def ceph_conf(state: Path, fsid: str, ports: CephPorts, *, on_disk: bool, gib: int) -> str:
    classes = next(path for folder in _LIBRARIES if (path := Path(folder, "rados-classes")).is_dir())
    certificate = f"ssl_certificate={state}/server.crt ssl_private_key={state}/server.key"
    return f"""\
[global]
fsid = {fsid}
mon initial members = a
mon host = {ports.monitor_addresses}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
run dir = {state}/run
crash dir = {state}/logs
admin socket = {state}/run/$name.asok
log file = {state}/logs/$name.log
mon cluster log file = {state}/logs/cluster.log
mon data = {state}/mon
osd data = {state}/osd
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 5000
mon data avail warn = 1
mon data avail crit = 0
mon osd full ratio = 0.98
mon osd nearfull ratio = 0.97
[mon]
paxos propose interval = 0.05
[osd]
osd objectstore = {"bluestore" if on_disk else "memstore"}
memstore device bytes = {gib << 30}
bluestore block size = {gib << 30}
bluestore block create = true
bluestore fsck on mount = false
osd memory target = 1073741824
osd client watch timeout = 3
osd class dir = {classes}
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw frontends = beast ssl_endpoint=127.0.0.1:{ports.gateway} {certificate}
rgw rados pool pg num min = 4
rgw thread pool size = 64
rgw enable usage log = false
rgw gc obj min wait = 1
rgw gc processor period = 2
"""
