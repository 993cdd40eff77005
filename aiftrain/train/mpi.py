"""Where ranks that mpiexec or srun started meet: rank 0 tells the others over MPI. Nothing else here uses MPI."""

from __future__ import annotations

import fcntl
import importlib
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from aiftrain.errors import AiftrainError, UserError
from aiftrain.run.machine import Rendezvous
from aiftrain.run.rank import Rank

_ABI = {"openmpi": "openmpi", "mpich": "mpich", "pals": "mpich"}  # the library that a launcher's ranks must load
_STARTERS = {"slurm": ("srun", "another srun --mpi=... (srun --mpi=list)")}
_GET_INTERFACE_ADDRESS = 0x8915  # SIOCGIFADDR of linux/sockios.h
_BY_HAND = "or set MASTER_ADDR and MASTER_PORT, the same for all ranks, and MPI is not needed"


def library_of(rank: Rank, environ: Mapping[str, str] = os.environ) -> str | None:
    """The MPI library, as mpi4py calls it, that can join the ranks; None where nothing offers them to one.

    srun does with --mpi=pmix (to Open MPI), and with pmi2 or cray_shasta (to MPICH, Intel's and Cray's).
    """
    if rank.launcher != "slurm":
        return _ABI.get(rank.launcher)
    if "PMIX_RANK" in environ:
        return "openmpi"
    return "mpich" if "PMI_RANK" in environ or "PALS_RANKID" in environ else None


def meeting_point(rank: Rank, rule: Rendezvous | AiftrainError | None) -> tuple[str, int]:
    """The address and a free port of rank 0, the same on all ranks.

    `rule` says which address that is, or why rank 0 has none to give, which is then raised on every rank; only
    rank 0's counts.
    MPI is left again at once: mpiexec takes a rank that dies while it is in MPI, or leaves it unfinished, for a
    failure of MPI. Raises UserError where mpi4py is missing, or speaks another MPI than mpiexec does.
    """
    mpi = _load(rank)
    world = mpi.COMM_WORLD
    if world.Get_size() != rank.world_size:
        library = " ".join(mpi.Get_library_version().splitlines()[0].split(",")[0].strip("\0").split())
        starter, other = _STARTERS.get(rank.launcher, ("mpiexec", f"the mpiexec of {library}"))
        raise UserError(
            f"{rank.launcher} started {rank.world_size} ranks, but mpi4py, with {library}, sees a world of "
            f"{world.Get_size()}: mpi4py and {starter} speak of different MPIs. Use {other}, "
            f"load the site's mpi4py, {_BY_HAND}"
        )
    point: tuple[str, int] | AiftrainError = world.bcast(_own(rank, rule) if rank.rank == 0 else None)
    mpi.Finalize()
    if isinstance(point, AiftrainError):
        raise point
    return point


def address(rule: Rendezvous) -> str:
    """This node's address for the others, as the site's rule has it. UserError where the interface is not there."""
    host = socket.gethostname()
    if rule.rule == "suffix":
        return f"{host}{rule.suffix or ''}"
    if rule.rule == "address":
        return _interface_address(rule.interface or "")
    return host


def _own(rank: Rank, rule: Rendezvous | AiftrainError | None) -> tuple[str, int] | AiftrainError:
    if isinstance(rule, AiftrainError):
        return rule
    assert rule is not None, "rank 0 has read it"
    try:
        own = "127.0.0.1" if rank.local_size == rank.world_size else address(rule)
    except UserError as error:
        return error
    with socket.socket() as probe:
        probe.bind(("", 0))
        return own, probe.getsockname()[1]


def _load(rank: Rank) -> Any:
    library, launcher = library_of(rank), rank.launcher
    if library:
        os.environ.setdefault("MPI4PY_MPIABI", library)  # else mpi4py takes whichever library it finds first
    try:
        return importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        if error.name == "mpi4py":
            reason = "this Python lacks: python -m pip install -c constraints.txt 'aiftrain[mpi]'"
        else:
            reason = f"cannot load that MPI ({error}): load its module, or put its folder on LD_LIBRARY_PATH"
        raise UserError(f"the ranks of {launcher} meet over mpi4py, which {reason}, {_BY_HAND}") from error


def _interface_address(interface: str) -> str:
    request = struct.pack("256s", os.fsencode(interface)[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _GET_INTERFACE_ADDRESS, request)
        except OSError as error:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise UserError(
                f"{socket.gethostname()} has no address on interface {interface!r} ({error.strerror}); it has {names}"
            ) from error
    return socket.inet_ntoa(answer[20:24])
