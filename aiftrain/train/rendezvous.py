"""How the ranks of a run find each other, and agree."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware
from aiftrain.run.rank import MPI_LAUNCHERS, Rank
from aiftrain.train.briefing import Briefing, hear, tell
from aiftrain.train.mpi import library_of, meeting_point

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)  # a collective that waits longer has lost a rank
_LONGER = timedelta(minutes=1)  # than rank 0 waits for the others, so that they hear from it who did not come


def meet(rank: Rank, read: Callable[[], Briefing]) -> tuple[Briefing, Store]:
    """Find the other ranks. Gives what rank 0 has read, and the store over which ranks send each other messages.

    `read` is called on rank 0 alone; where it fails, its error is raised on every rank.
    Raises UserError where the world that came up is not the planned one, before anything is allocated.
    """
    outcome = _outcome(rank, read) if rank.rank == 0 else None
    if rank.world_size == 1 and isinstance(outcome, AiftrainError):
        raise outcome  # nobody else to tell: no port is taken
    _find_rank_0(rank, outcome)
    store = connect(rank)
    briefing = hear(store, rank.world_size - 1) if outcome is None else tell(store, outcome)
    _check_world(rank, briefing.execution.layout)
    return briefing, store


def connect(rank: Rank, *, again: bool = False) -> Store:
    """A connection to the store at which the ranks meet: torchrun's, or the one that rank 0 opens here.

    `again`: rank 0 has opened it before. Raises MachineError where rank 0 cannot open it, or does not answer.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    opens = rank.rank == 0 and not again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store: Store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=opens, timeout=TIMEOUT + _LONGER, wait_for_workers=False
        )
        return store
    except dist.DistError as error:
        reason = str(error).partition("\n")[0]
        if opens:
            raise MachineError(f"rank 0 cannot open port {port} for the other ranks: {reason}") from error
        raise MachineError(f"waited in vain for another rank: 0 at {host}, port {port}: {reason}") from error


def join(rank: Rank, hardware: Hardware, store: Store) -> torch.device:
    """Take the device that this rank owns, and make the process group over `store`."""
    device = _device(rank, hardware)
    os.environ |= words_to_deepspeed(rank, device)
    os.environ.pop("OMPI_COMM_WORLD_LOCAL_RANK", None)  # DeepSpeed ends a rank where it differs from LOCAL_RANK
    # Without this, DeepSpeed asks of each of its extensions whether it could be compiled here: it runs a compiler on
    # every rank, and would build one for inference on a CPU, where a start killed meanwhile leaves a lock behind.
    deepspeed.ops.__compatible_ops__ = {}
    backend = "gloo" if hardware.is_cpu else "nccl"
    dist.init_process_group(
        backend,
        store=store,
        rank=rank.rank,
        world_size=rank.world_size,
        timeout=TIMEOUT,
        device_id=device if device.type == "cuda" and rank.world_size > 1 else None,
    )
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=TIMEOUT)
    return device


def words_to_deepspeed(rank: Rank, device: torch.device) -> dict[str, str]:
    """The variables that DeepSpeed reads, whoever the launcher is.

    It takes LOCAL_RANK for the number of the GPU, which it is not where each rank sees its own GPU alone.
    """
    return {
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": str(rank.local_rank if device.index is None else device.index),
        "LOCAL_WORLD_SIZE": str(rank.local_size),
    }


def part() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def agree(values: list[float], device: torch.device) -> list[float]:
    """The sum of every rank's values, the same on all ranks."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor.tolist()]  # one wait for a GPU, and not one for each


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


def from_first(action: Callable[[], T]) -> T:
    """What rank 0 gets by doing something, on all ranks. Unlike `gather`, it is sent once to each."""
    values: list[Any] = [action() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(values)
    value: T = values[0]
    return value


def _device(rank: Rank, hardware: Hardware) -> torch.device:
    if hardware.is_cpu:
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 0:
        raise UserError(f"the run is for {hardware.name}, but torch sees no GPU on {socket.gethostname()}")
    device = torch.device("cuda", rank.local_rank % visible)
    torch.cuda.set_device(device)
    return device


def _outcome(rank: Rank, read: Callable[[], Briefing]) -> Briefing | AiftrainError:
    """What the other ranks are to be told: what was read, or why there is nothing to begin with."""
    try:
        briefing = read()
        _check_world(rank, briefing.execution.layout)
        return briefing
    except AiftrainError as error:
        return error
    except Exception as error:  # a fault of ours: the others must not wait for a rank that is gone
        traceback.print_exc()
        return MachineError(f"{type(error).__name__}: {error}")


def _check_world(rank: Rank, layout: ParallelLayout) -> None:
    if rank.world_size != layout.world_size:
        raise UserError(_other_world(rank, layout))


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


def _find_rank_0(rank: Rank, outcome: Briefing | AiftrainError | None) -> None:
    """See to it that MASTER_ADDR and MASTER_PORT say where the ranks come together. `outcome` is rank 0's."""
    if "MASTER_ADDR" not in os.environ and library_of(rank):
        rule = outcome.spec.factory.rendezvous if isinstance(outcome, Briefing) else outcome
        host, port = meeting_point(rank, rule)
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    if "MASTER_ADDR" not in os.environ and rank.world_size > 1:
        raise UserError(
            f"{rank.launcher} started {rank.world_size} ranks and nothing says where they meet: use srun --mpi=... "
            "with an mpi4py of that MPI (srun --mpi=list), launcher=slurm, or set MASTER_ADDR and MASTER_PORT"
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
