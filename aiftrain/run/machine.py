"""What a machine is: a `Hardware` is one node type, a `Factory` is one site with its scheduler and storage.

A figure that nobody documents is None; the plan then says what it could not know. Every figure that is
given has an entry in `provenance`, keyed by its dotted field name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiftrain.run.base import Provenance, Strict


class Hardware(Strict):
    """One node type. A device is what one rank owns: a GPU, a GCD of an MI250X, or a whole CPU node."""

    name: str
    title: str
    kind: Literal["cpu", "cuda", "rocm"]
    arch: Literal["x86_64", "aarch64", "any"] = "any"
    devices_per_node: int = Field(1, ge=1)
    device_memory_gib: float | None = None
    node_memory_gib: float | None = None
    usable_cores_per_node: int | None = None
    bf16: bool = True
    peak_bf16_tflops: float | None = None  # dense, one device, data sheet
    matmul_bf16_tflops: float | None = None  # best measured, one device
    memory_gb_per_s: float | None = None
    intra_node_gb_per_s: float | None = None  # per direction, one device
    inter_node_gb_per_s: float | None = None  # per direction, one device
    provenance: dict[str, Provenance] = {}

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"


class Partition(Strict):
    """A queue of the site's scheduler. `max_time` as the scheduler writes it: D-HH:MM:SS."""

    max_nodes: int | None = None
    max_time: str | None = None
    exclusive: bool = False
    qos: str | None = None


class Billing(Strict):
    """The site's own unit and how many of them one whole node costs for an hour."""

    unit: str
    per_node_hour: float


class Container(Strict):
    """How the site runs containers: `runtime`, the image, folders bound into it, extra flags."""

    runtime: Literal["singularity", "apptainer", "enroot"]
    image: str | None = None
    binds: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


class Factory(Strict):
    """One site: who runs it, how jobs get in, and what a job must set there."""

    name: str
    title: str
    status: Literal["operational", "announced"] = "operational"
    scheduler: Literal["none", "slurm"] = "none"
    cluster_names: tuple[str, ...] = ()  # Slurm's ClusterName, for factory=auto
    host_patterns: tuple[str, ...] = ()  # regular expressions on the host name, for factory=auto
    account_required: bool = False
    partition: str | None = None  # the default one
    partitions: dict[str, Partition] = {}
    gpu_request: tuple[str, ...] = ()  # sbatch options, one each
    memory: str | None = None  # sbatch --mem
    cpus_per_task: int | None = None
    cpu_bind: str | None = None  # srun --cpu-bind, for one task a device
    srun_flags: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # shell lines that set up modules before srun
    env: dict[str, str] = {}
    container: Container | None = None
    internet_on_compute: bool | None = None
    requeue_on_node_failure: bool | None = None
    billing: Billing | None = None
    provenance: dict[str, Provenance] = {}
