"""The shape of a cluster with Slurm: what a rig's slurm.conf is written from."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiftrain.run.machine import Partition, Qos


@dataclass(frozen=True)
class SlurmWords:
    """A cluster whose nodes are not all equal, in Slurm's own words: of slurm.conf, sacctmgr, job_submit.lua."""

    slurm: str
    sacctmgr: str = ""
    submit_filter: str = ""


@dataclass(frozen=True)
class Shape:
    """A cluster of equal nodes. `cores` are physical ones of a node, `memory_mib` is what its jobs may use."""

    name: str
    nodes: int
    cores: int
    memory_mib: int
    threads_per_core: int = 1
    gpus: int = 0
    gpu_type: str = ""
    features: tuple[str, ...] = ()
    partitions: dict[str, Partition] = field(default_factory=dict)
    qos: dict[str, Qos] = field(default_factory=dict)
    accounts: tuple[str, ...] = ()
    words: SlurmWords | None = None  # then the rest but the name does not count

    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]
