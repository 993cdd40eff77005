"""How the ranks of a run find each other, and agree."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist

from aiftrain.errors import MachineError, UserError
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware, Rendezvous
from aiftrain.run.rank import MPI_LAUNCHERS, Rank
from aiftrain.train.mpi import library_of, meeting_point

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store  # torch.distributed has it too, but does not tell type checkers

T = TypeVar("T")

_HOST_NAME = Rendezvous()
TIMEOUT = timedelta(minutes=10)  # a collective that waits longer has lost a rank
_LONGER = timedelta(minutes=1)  # than rank 0 waits for the others, so that they hear from it who did not come


def meet(
    rank: Rank,
    layout: ParallelLayout,
    hardware: Hardware,
    rule: Rendezvous = _HOST_NAME,
    first: Callable[[Store], None] | None = None,
) -> torch.device:
    """Join the process group and give the device that this rank owns.

    `rule` says which address of rank 0's node the others use, where the launcher named none in MASTER_ADDR. `first`
    is what there is to do as soon as ranks can send each other messages, before the process group is made.
    Raises UserError where the world that came up is not the planned one, before anything is allocated.
    """
    if rank.world_size != layout.world_size:
        raise UserError(_other_world(rank, layout))
    _complete_environment(rank, rule)
    store = connect(rank)
    if first is not None:
        first(store)
    device = _device(rank, hardware)
    # An extension for inference that DeepSpeed would compile at every first start on a CPU: a machine without a
    # compiler fails there, and a start killed meanwhile leaves a lock that all later ones wait for.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="gloo" if hardware.is_cpu else "nccl",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=TIMEOUT,
    )
    return device


def connect(rank: Rank, *, again: bool = False) -> Store:
    """A connection to the store at which the ranks meet: torchrun's, or the one that rank 0 opens here.

    torch opens no second one for the process group in the same process. `again`: rank 0 has opened it before.
    Raises MachineError where rank 0 cannot open it, or does not answer.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    opens = rank.rank == 0 and not again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=opens, timeout=TIMEOUT + _LONGER, wait_for_workers=False, multi_tenant=True
        )
    except dist.DistError as error:
        reason = str(error).partition("\n")[0]
        if opens:
            raise MachineError(f"rank 0 cannot open port {port} for the other ranks: {reason}") from error
        raise MachineError(f"rank 0 does not answer at {host}, port {port}: {reason}") from error


def part() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def agree(values: list[float], device: torch.device) -> list[float]:
    """The sum of every rank's values, the same on all ranks."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def gather_numbers(value: float, device: torch.device) -> list[float]:
    """Every rank's number, in order of rank, on all ranks: one collective, for what is done while training."""
    values = torch.zeros(dist.get_world_size(), dtype=torch.float64, device=device)
    values[dist.get_rank()] = value
    dist.all_reduce(values)
    return [float(each) for each in values.tolist()]


def gather(value: T) -> list[T]:
    """Every rank's value, in order of rank, on all ranks."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _device(rank: Rank, hardware: Hardware) -> torch.device:
    if hardware.is_cpu:
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 0:
        raise UserError(f"the run is for {hardware.name}, but torch sees no GPU on {socket.gethostname()}")
    device = torch.device("cuda", rank.local_rank % visible)
    torch.cuda.set_device(device)
    return device


def _other_world(rank: Rank, layout: ParallelLayout) -> str:
    plan = f"the plan is for {layout.world_size} ranks ({layout.nodes} nodes of {layout.ranks_per_node})"
    if rank.launcher == "none":
        return f"{plan}, but this process is alone: start it under torchrun, srun or mpiexec, or with `aiftrain launch`"
    ways = f"start {layout.world_size}, or plan for {rank.world_size}"
    if rank.world_size == 1 and rank.launcher in ("slurm", *MPI_LAUNCHERS):
        ways += (
            f". If there are {layout.world_size} processes and each calls itself the only one, mpiexec or srun speaks "
            "another MPI than they do: use the mpiexec of their MPI, or another srun --mpi=... (srun --mpi=list)"
        )
    return f"{plan}, but {rank.launcher} started {rank.world_size}: {ways}"


def _complete_environment(rank: Rank, rule: Rendezvous) -> None:
    """DeepSpeed and torch read these names, whoever the launcher is."""
    if "MASTER_ADDR" not in os.environ and library_of(rank):
        host, port = meeting_point(rank, rule)
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    if "MASTER_ADDR" not in os.environ and rank.world_size > 1:
        raise UserError(
            f"{rank.launcher} started {rank.world_size} ranks and nothing says where they meet: use srun --mpi=... "
            "with an mpi4py of that MPI (srun --mpi=list), launcher=slurm, or set MASTER_ADDR and MASTER_PORT"
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ |= {
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": str(rank.local_rank),
        "LOCAL_WORLD_SIZE": str(rank.local_size),
    }
