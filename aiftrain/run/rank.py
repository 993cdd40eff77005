"""Who this process is among all ranks, read from the environment its launcher made.

The launchers speak different dialects, and one environment may hold several: mpiexec inside a Slurm job leaves the
variables of the batch step, or of the step that started its daemons, beside its own. The one that stands nearest to
the process wins: torchrun and DeepSpeed's runner, then the MPI libraries, then Slurm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiftrain.errors import EXIT_OK, EXIT_RESUME, UserError

MPI_LAUNCHERS = ("openmpi", "pals", "mpich")  # whose ranks an MPI library joins


@dataclass(frozen=True)
class Rank:
    """`rank` of `world_size`; `local_rank` of `local_size` on this node; and the launcher that said so."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"

    def exit_status(self, code: int) -> int:
        """What a rank that ends with `code` tells its launcher.

        mpiexec and DeepSpeed's runner kill all ranks, saving or not, once one leaves with another code than 0.
        To them a rank that has saved is done; that it wants to go on its note says, and their script reads that.
        """
        ends_all = self.launcher in (*MPI_LAUNCHERS, "deepspeed")
        return EXIT_OK if ends_all and code == EXIT_RESUME else code


@dataclass(frozen=True)
class _Dialect:
    """Variables that hold rank, world size, rank on the node and ranks on the node; of several, the first that is set.

    `applies` looks at an environment where the rank's variable is there, and says whether this launcher put it there.
    """

    launcher: str
    rank: str
    world_size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    applies: Callable[[Mapping[str, str]], bool] = lambda environ: True


_OF_NODE = ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID")


def _not_of_srun(rank: str) -> Callable[[Mapping[str, str]], bool]:
    """srun sets PMI_RANK (--mpi=pmi2) or PALS_RANKID (--mpi=cray_shasta) too, but nothing about the node: then Slurm's
    own variables say more."""
    return lambda environ: any(map(environ.__contains__, _OF_NODE)) or environ.get("SLURM_PROCID") != environ[rank]


_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?(?:,|$)")
_SLURM_LOCAL_SIZE = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
_DIALECTS = (
    _Dialect("deepspeed", "RANK", ("WORLD_SIZE",), ("LOCAL_RANK",), ("LOCAL_SIZE",), lambda e: "CROSS_SIZE" in e),
    _Dialect("torchrun", "RANK", ("WORLD_SIZE",), ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",)),
    _Dialect(
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    # HPE's mpiexec on Cray machines; how many ranks there are only PMI says
    _Dialect(
        "pals",
        "PALS_RANKID",
        ("PMI_SIZE",),
        ("PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
        ("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
        _not_of_srun("PALS_RANKID"),
    ),
    # MPICH and Intel MPI say MPI_LOCAL*, Cray's srun PMI_LOCAL_*
    _Dialect(
        "mpich",
        "PMI_RANK",
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
        _not_of_srun("PMI_RANK"),
    ),
    _Dialect("slurm", "SLURM_PROCID", ("SLURM_NTASKS",), ("SLURM_LOCALID",), _SLURM_LOCAL_SIZE),
)


def read_rank(environ: Mapping[str, str]) -> Rank:
    """The rank this environment describes; a lone process where no launcher speaks.

    Raises UserError where a launcher's variables are there but incomplete, no numbers, or contradict each other.
    """
    for dialect in _DIALECTS:
        if dialect.rank in environ and dialect.applies(environ):
            return _read(environ, dialect)
    return Rank()


def _read(environ: Mapping[str, str], dialect: _Dialect) -> Rank:
    names = ((dialect.rank,), dialect.world_size, dialect.local_rank, dialect.local_size)
    rank, world, local_rank, local_size = (_number(environ, dialect, alternatives) for alternatives in names)
    if not (rank < world and local_rank < local_size <= world):
        raise UserError(
            f"{dialect.launcher} calls this rank {rank} of {world}, {local_rank} of {local_size} on its node, which "
            f"cannot be: look where {dialect.rank} and its likes are set besides by the launcher"
        )
    return Rank(rank, world, local_rank, local_size, dialect.launcher)


def _number(environ: Mapping[str, str], dialect: _Dialect, names: tuple[str, ...]) -> int:
    name = next((name for name in names if name in environ), names[0])
    text = environ.get(name, "")
    if name.endswith("TASKS_PER_NODE"):
        text = _of_this_node(text, environ.get("SLURM_NODEID", "0"))
    if not (text.isascii() and text.isdigit()):
        raise UserError(
            f"{dialect.launcher} set {dialect.rank}={environ[dialect.rank]} but {' or '.join(names)} is {text!r}, "
            f"not a number; if {dialect.launcher} did not start this process, unset {dialect.rank}"
        )
    return int(text)


def _of_this_node(tasks: str, node: str) -> str:
    """Slurm's list of tasks a node, such as `4(x2),3` for 4, 4 and 3; the entry of node number `node`."""
    entries = _TASKS.findall(tasks) if re.fullmatch(rf"(?:{_TASKS.pattern})+", tasks) else []
    counts = [count for count, times in entries for _ in range(int(times or 1))]
    return counts[int(node)] if node.isdigit() and int(node) < len(counts) else tasks
