"""What a machine is: a `Hardware` is one node type, a `Factory` is one site with its scheduler and storage.

A figure that nobody documents is None; the plan then says what it could not know. Every figure that is
given has an entry in `provenance`, keyed by its dotted field name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aiftrain.run.base import Provenance, Strict
from aiftrain.run.precision import Half


class NodeFacts(Strict):
    """What differs between sites that have the same accelerator: how a node is built round it."""

    devices_per_node: int | None = Field(None, ge=1)
    node_memory_gib: float | None = None  # what a job may use
    usable_cores_per_node: int | None = None
    numa_domains: int | None = None
    device_numa: tuple[int, ...] = ()  # the NUMA domain nearest to each device
    device_cores: tuple[str, ...] = ()  # the cores nearest to each device, as taskset writes them: 0-71
    device_nics: tuple[str, ...] = ()  # the network card nearest to each device: mlx5_0, hsn0
    nics_per_node: int | None = None
    inter_node_gb_per_s: float | None = None  # per direction, one device's share of the node's cards
    node_power_w: float | None = None  # the node without its devices


class Hardware(Strict):
    """One node type. A device is what one rank owns: a GPU, a GCD of an MI250X, or a whole CPU node."""

    name: str
    title: str
    kind: Literal["cpu", "cuda", "rocm"]
    arch: Literal["x86_64", "aarch64", "any"] = "any"
    devices_per_node: int = Field(1, ge=1)
    device_memory_gib: float | None = None
    unified_memory: bool = False  # the device's memory is the node's only memory
    node_memory_gib: float | None = None
    usable_cores_per_node: int | None = None
    numa_domains: int | None = None
    device_numa: tuple[int, ...] = ()
    device_cores: tuple[str, ...] = ()
    device_nics: tuple[str, ...] = ()
    nics_per_node: int | None = None
    bf16: bool = True
    fp8: bool | None = None  # products in 8-bit floating point; None: where their peak is known
    peak_bf16_tflops: float | None = None  # dense, one device, data sheet
    peak_fp16_tflops: float | None = None  # where it is not the bf16 one
    peak_fp8_tflops: float | None = None
    matmul_bf16_tflops: float | None = None  # best measured, one device
    memory_gb_per_s: float | None = None
    fast_domain: int | None = None  # devices joined by the fast links, where that is not the node (NVL72: 72)
    intra_node_gb_per_s: float | None = None  # per direction, one device, to all its peers together
    inter_node_gb_per_s: float | None = None  # per direction, one device
    intra_node_us: float | None = None  # from one device to the next, in a collective
    inter_node_us: float | None = None
    device_power_w: float | None = None  # the power limit of one device
    node_power_w: float | None = None  # the rest of the node: processors, memory, network cards
    provenance: dict[str, Provenance] = {}

    @property
    def has_fp8(self) -> bool:
        return self.peak_fp8_tflops is not None if self.fp8 is None else self.fp8

    @property
    def half(self) -> Half:
        """The numbers of 16 bits that it is fastest at."""
        return "bf16" if self.bf16 else "fp16"

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"


class Partition(Strict):
    """A queue of the site's scheduler. Times as the scheduler writes them: D-HH:MM:SS."""

    min_nodes: int | None = None
    max_nodes: int | None = None
    max_time: str | None = None
    default_time: str | None = None
    exclusive: bool = False
    qos: str | None = None  # the quality of service that a job here must name


class Qos(Strict):
    """A quality of service that a job may name, where its limits differ from the partition's."""

    min_nodes: int | None = None
    max_nodes: int | None = None
    max_time: str | None = None
    max_jobs: int | None = None  # of one user
    reservation: str | None = None  # the only place where its jobs run


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


class Rendezvous(Strict):
    """How the ranks find each other: the first node's name as it is, with a suffix, or the address of an interface."""

    rule: Literal["hostname", "suffix", "address"] = "hostname"
    suffix: str | None = None  # put after the host name: -interconnect-1.jupiter.internal
    interface: str | None = None  # whose address is taken: ib0


class StorageArea(Strict):
    """A place for files. `quota_gb` in 10^9 bytes of a project or user; `purge_days` after the last use."""

    path: str
    quota_gb: float | None = None
    max_files: int | None = None
    purge_days: int | None = None
    write_gb_per_s: float | None = None  # what one job's ranks reach together
    billing_factor: float | None = None  # units of storage billed for one TB and hour
    backup: bool | None = None


class Factory(Strict):
    """One site: who runs it, how jobs get in, and what a job must set there."""

    name: str
    title: str
    status: Literal["operational", "announced"] = "operational"
    country: str | None = None  # ISO 3166-1, two letters: the grid it hangs on
    operator: str | None = None
    pue: float | None = None  # power usage effectiveness: the facility's energy over the computer's
    scheduler: Literal["none", "slurm", "pbs"] = "none"
    cluster_names: tuple[str, ...] = ()  # Slurm's ClusterName, for factory=auto
    host_patterns: tuple[str, ...] = ()  # regular expressions on the host name, for factory=auto
    account_required: bool = False
    account_pattern: str | None = None  # a regular expression that accounts here match
    nodes_total: int | None = None
    node: NodeFacts = NodeFacts()  # how the nodes here differ from the profile of the hardware
    partition: str | None = None  # the default one
    partitions: dict[str, Partition] = {}
    qos: dict[str, Qos] = {}
    gpu_request: tuple[str, ...] = ()  # options of sbatch or qsub, one each
    constraint: str | None = None  # sbatch --constraint
    hint: str | None = None  # sbatch --hint
    memory: str | None = None  # sbatch --mem
    cpus_per_task: int | None = None
    cpu_bind: str | None = None  # srun --cpu-bind, for one task a device
    mpi: str | None = None  # srun --mpi, for programs that call MPI
    srun_flags: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # shell lines that set up modules before srun
    env: dict[str, str] = {}
    container: Container | None = None
    rendezvous: Rendezvous = Rendezvous()
    storage_areas: dict[str, StorageArea] = {}
    internet_on_compute: bool | None = None
    requeue_on_node_failure: bool | None = None
    chain: Literal["requeue", "follow-up", "none"] | None = None  # how a job that ends early goes on; None: not known
    energy_counters: tuple[Literal["nvml", "amdsmi", "pm_counters", "hwmon", "rapl", "ear", "slurm"], ...] = ()
    billing: Billing | None = None
    provenance: dict[str, Provenance] = {}
