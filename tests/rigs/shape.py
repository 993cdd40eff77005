"""The shape of a cluster with Slurm: what a rig's slurm.conf is written from, and how a factory profile becomes one."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiftrain.run.machine import Factory, Hardware, Partition, Qos

_UNKNOWN_CORES = 64  # a node whose cores, memory or number nobody documents
_UNKNOWN_MIB = 512 * 1024
_UNKNOWN_NODES = 1000


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

    def node_names(self) -> list[str]:
        return [f"node{number}" for number in range(1, self.nodes + 1)]


def site_shape(factory: Factory, hardware: Hardware, accounts: tuple[str, ...] = ()) -> Shape:
    """The cluster that a factory profile describes, at full size. What the profile leaves open is made large."""
    cores = hardware.usable_cores_per_node or _UNKNOWN_CORES
    memory = hardware.node_memory_gib
    named = {partition.qos: Qos() for partition in factory.partitions.values() if partition.qos}
    return Shape(
        name=factory.name,
        nodes=factory.nodes_total or _UNKNOWN_NODES,
        cores=cores,
        memory_mib=round(memory * 1024) if memory else _UNKNOWN_MIB,
        threads_per_core=2 if factory.hint == "nomultithread" else 1,
        gpus=0 if hardware.is_cpu else hardware.devices_per_node,
        gpu_type=_gpu_type(factory.gpu_request),
        features=tuple(filter(None, [factory.constraint])),
        partitions=factory.partitions or {"batch": Partition()},
        qos=named | factory.qos,
        accounts=accounts,
    )


def _gpu_type(request: tuple[str, ...]) -> str:
    """The type that a site's own request names: a100 in --gres=gpu:a100:4."""
    words = next((option.split(":") for option in request if option.startswith("--gres=gpu:")), [])
    return words[1] if len(words) == 3 else ""
