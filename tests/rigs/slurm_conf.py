"""slurm.conf and gres.conf of a rig, and the accounts and qualities of service of its database."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiftrain.plan.limits import seconds_of
from aiftrain.run.machine import Partition, Qos
from tests.rigs.network import GATEWAY, address
from tests.rigs.shape import Shape, SlurmWords

_LOOPBACK = "127.0.0.1"

# Small timers: what takes minutes at a site shall take seconds here. cred_expire is how long a requeued job waits.
_COMMON = """
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
EnforcePartLimits=ALL
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=5
TCPTimeout=2
KillWait=10
CompleteWait=0
UnkillableStepTimeout=10
InactiveLimit=0
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=-1
"""


@dataclass(frozen=True)
class Ports:
    """Free ports of this machine: the controller's, the database daemon's, the database's, one a node."""

    controller: int
    dbd: int
    database: int
    nodes: tuple[int, ...]


def slurm_conf(shape: Shape, state: Path, ports: Ports, *, live: bool, accounting: bool) -> str:
    """With `live` every node has a port of its own; otherwise nodes are such as a cloud would start on demand."""
    user = getpass.getuser()
    lines = [
        f"ClusterName={shape.name}",
        f"SlurmctldHost={socket.gethostname()}({GATEWAY if live else _LOOPBACK})",
        f"SlurmctldPort={ports.controller}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"AuthInfo=socket={state}/munge/socket,cred_expire=5",
        f"StateSaveLocation={state}/controller",
        f"SlurmdSpoolDir={state}/spool/%n",
        f"SlurmctldPidFile={state}/slurmctld.pid",
        f"SlurmdPidFile={state}/slurmd-%n.pid",
        f"TmpFS={state}/tmp",
        *_COMMON.strip().splitlines(),
        *_accounting(state, ports, accounting),
        *(_described(shape.words) if shape.words else _equal_nodes(shape, ports, live=live, accounting=accounting)),
    ]
    return "\n".join(lines) + "\n"


def gres_conf(shape: Shape) -> str:
    """The GPUs of each node, as numbers alone: there are no devices."""
    if shape.words:
        return "".join(f"{line}\n" for line in _described_gpus(shape.words))
    kind = f" Type={shape.gpu_type}" if shape.gpu_type else ""
    return f"NodeName=node[1-{shape.nodes}] Name=gpu{kind} Count={shape.gpus}\n" if shape.gpus else ""


def slurmdbd_conf(state: Path, ports: Ports) -> str:
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={state}/munge/socket",
        f"DbdHost={socket.gethostname()}",
        "DbdAddr=127.0.0.1",
        f"DbdPort={ports.dbd}",
        f"SlurmUser={getpass.getuser()}",
        f"PidFile={state}/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",
        f"StoragePort={ports.database}",
        "StorageUser=slurm",
        "StoragePass=rig",
        "StorageLoc=slurm_acct_db",
        "CommitDelay=0",
    ]
    return "\n".join(lines) + "\n"


def sacctmgr_commands(shape: Shape) -> Iterator[list[str]]:
    """What fills the database: the cluster, its qualities of service, and accounts that may use all of them."""
    yield ["add", "cluster", shape.name]
    yield from _described_accounts(shape.words) if shape.words else ()
    for name, qos in shape.qos.items():
        if name != "normal":  # that one every Slurm has
            yield ["add", "qos", name]
        yield ["modify", "qos", name, "set", *_qos_limits(shape, qos)]
    for account in shape.accounts:
        yield ["add", "account", account, f"Cluster={shape.name}"]
        allowed = ",".join(sorted({"normal", *shape.qos}))
        yield ["modify", "account", account, "set", f"QOS={allowed}", "DefaultQOS=normal"]
        yield ["add", "user", getpass.getuser(), f"Account={account}"]


def _accounting(state: Path, ports: Ports, accounting: bool) -> list[str]:
    if not accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={ports.dbd}",
        f"AccountingStoragePass={state}/munge/socket",  # clients take the socket from here, not from AuthInfo
        "AccountingStorageEnforce=associations,limits,qos",
    ]


def _equal_nodes(shape: Shape, ports: Ports, *, live: bool, accounting: bool) -> Iterator[str]:
    yield from ["GresTypes=gpu"] if shape.gpus else []
    yield from _live_nodes(shape, ports) if live else [f"NodeName=node[1-{shape.nodes}] State=CLOUD {_node(shape)}"]
    yield from _partitions(shape, accounting)


def _described(words: SlurmWords) -> Iterator[str]:
    yield "JobSubmitPlugins=lua"  # job_submit.lua beside slurm.conf
    yield "GresTypes=gpu"
    yield "NodeName=DEFAULT State=CLOUD"
    yield from words.slurm.splitlines()


def _described_gpus(words: SlurmWords) -> Iterator[str]:
    for nodes, kind, count in re.findall(r"^NodeName=(\S+).* Gres=gpu:(?:(\w+):)?(\d+)", words.slurm, re.MULTILINE):
        yield f"NodeName={nodes} Name=gpu{f' Type={kind}' if kind else ''} Count={count}"


def _described_accounts(words: SlurmWords) -> Iterator[list[str]]:
    """As described, and this user in each of the accounts."""
    for line in words.sacctmgr.splitlines():
        command = line.split()
        yield command
        if command[:2] == ["add", "account"]:
            yield ["add", "user", getpass.getuser(), f"Account={command[2]}"]


def _live_nodes(shape: Shape, ports: Ports) -> Iterator[str]:
    for number, (name, port) in enumerate(zip(shape.node_names(), ports.nodes, strict=True), 1):
        yield f"NodeName={name} NodeHostname={name} NodeAddr={address(number)} Port={port} {_node(shape)}"


def _node(shape: Shape) -> str:
    words = [
        "Sockets=1",
        f"CoresPerSocket={shape.cores}",
        f"ThreadsPerCore={shape.threads_per_core}",
        f"RealMemory={shape.memory_mib}",
    ]
    if shape.gpus:
        words.append(f"Gres=gpu:{shape.gpu_type + ':' if shape.gpu_type else ''}{shape.gpus}")
    if shape.features:
        words.append(f"Features={','.join(shape.features)}")
    return " ".join(words)


def _partitions(shape: Shape, accounting: bool) -> Iterator[str]:
    """The first is the default one. With accounting, limits that a quality of service exceeds are left to these."""
    most = max((qos.max_nodes or 0 for qos in shape.qos.values()), default=0)
    longest = max((qos.max_time for qos in shape.qos.values() if qos.max_time), key=_seconds, default=None)
    for place, (name, limits) in enumerate(shape.partitions.items()):
        if accounting and limits.max_nodes:
            limits = limits.model_copy(update={"max_nodes": max(most, limits.max_nodes)})
        if accounting and limits.max_time and longest:
            limits = limits.model_copy(update={"max_time": max(longest, limits.max_time, key=_seconds)})
        yield _partition(name, limits, default=place == 0)


def _partition(name: str, limits: Partition, *, default: bool) -> str:
    known = {
        "MaxNodes": limits.max_nodes,
        "MinNodes": limits.min_nodes,
        "MaxTime": limits.max_time,
        "DefaultTime": limits.default_time,
        "OverSubscribe": "EXCLUSIVE" if limits.exclusive else None,
        "Default": "YES" if default else None,
    }
    words = [f"{key}={value}" for key, value in known.items() if value is not None]
    return " ".join([f"PartitionName={name} Nodes=ALL", *words])


def _seconds(time: str) -> int:
    return seconds_of(time) or 0


def _qos_limits(shape: Shape, qos: Qos) -> list[str]:
    """DenyOnLimit refuses at once what would otherwise wait for ever."""
    limits = {
        "MaxTRESPerJob=node": qos.max_nodes or shape.nodes,
        "MinTRESPerJob=node": qos.min_nodes,
        "MaxWall": qos.max_time,
        "MaxJobsPerUser": qos.max_jobs,
    }
    return ["Flags=DenyOnLimit", *(f"{key}={value}" for key, value in limits.items() if value is not None)]
