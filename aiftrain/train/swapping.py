"""Masters and optimizer states that DeepSpeed keeps in files on a disk of the node (ZeRO-Infinity, arXiv 2104.07857).

DeepSpeed brings a part of them into memory for its step and writes it back; in between its tensors are empty. A file
holds one of them as it would lie in memory. So it can be mapped: what reads or writes a view of it, reads or writes the
file, and only what is touched takes memory. DeepSpeed goes past the page cache (O_DIRECT), and Linux keeps both alike.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aiftrain.errors import MachineError, UserError

_WHERE = "parallelism.nvme_path"


def on_this_node(config: dict[str, Any], needed: int) -> dict[str, Any]:
    """`config`, which is deepspeed.json's, with the folder for files as this node has it; it exists from now on.

    UserError where it names a variable that the job does not have, or where DeepSpeed's reader of files cannot be
    built; MachineError where it cannot be made, or has no room for the `needed` bytes.
    """
    zero = config["zero_optimization"]
    offload = zero["offload_optimizer"]
    folder = _folder(offload["nvme_path"], needed)
    _load_async_io()
    there = {"offload_optimizer": offload | {"nvme_path": str(folder)}}
    return config | {"zero_optimization": zero | there}


def remove_files(config: dict[str, Any], rank: int) -> None:
    """What `rank` leaves on its node's disk, after training."""
    if path := config["zero_optimization"].get("offload_optimizer", {}).get("nvme_path"):
        shutil.rmtree(Path(path, "zero_stage_3", "optimizer", f"rank{rank}"), ignore_errors=True)


def as_tensors(engine: Any, master: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The values of `tensors`, which are `master` and its states; what is in files is mapped into memory."""
    count = _count_in_file(engine, master)
    if count is None:
        return {name: tensor.data for name, tensor in tensors.items()}
    return {
        name: torch.from_file(_file(engine, tensor), shared=True, size=count, dtype=tensor.dtype)
        for name, tensor in tensors.items()
    }


@contextmanager
def in_memory(engine: Any, master: Tensor, *, changes: bool) -> Iterator[None]:
    """Inside, `master` and its states are in memory. `changes`: what was changed or made there is written back."""
    if _count_in_file(engine, master) is None:
        yield
        return
    swapper = engine.optimizer.optimizer_swapper
    swapper.swap_in_optimizer_state(parameter=master)
    yield
    if changes:
        swapper.swap_out_optimizer_state(parameter=master)
    else:
        swapper.release_swap_buffers(parameter=master)


def settle(engine: Any, master: Tensor, tensors: dict[str, Tensor]) -> None:
    """What was written into mapped files is on the disk."""
    if _count_in_file(engine, master) is None:
        return
    for tensor in tensors.values():
        file = os.open(_file(engine, tensor), os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _count_in_file(engine: Any, master: Any) -> int | None:
    """Of elements; None where `master` is in memory. DeepSpeed leaves there what has less than a MiB."""
    swapper: Any = getattr(engine.optimizer, "optimizer_swapper", None)
    swapped = swapper and swapper.swap_params_info.get(master.ds_id)
    return int(swapped.numel()) if swapped else None


def _file(engine: Any, tensor: Any) -> str:
    return f"{engine.optimizer.optimizer_swapper.swap_folder}/{tensor.ds_id}.tensor.swp"


def _folder(wanted: str, needed: int) -> Path:
    folder = Path(os.path.expandvars(wanted))
    if "$" in str(folder):
        raise UserError(f"{_WHERE}: {wanted} names a variable that this job does not have; it has {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{_WHERE}: {folder} cannot be made on this node: {error}") from error
    left = sum(file.stat().st_size for file in folder.rglob("*.swp"))  # by a start that was killed: written over
    free = shutil.disk_usage(folder).free + left
    if free < needed:
        raise MachineError(
            f"{_WHERE}: {folder} has {free / 1e9:,.1f} GB free, and this node's ranks need {needed / 1e9:,.1f}"
        )
    return folder


def _load_async_io() -> None:
    """DeepSpeed compiles it when it is first used, which takes minutes; ranks of a node wait for the first of them."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    try:
        AsyncIOBuilder().load(verbose=False)
    except Exception as error:  # of the compiler, of the linker, of ninja, of DeepSpeed
        raise UserError(
            "states on a disk of the node need DeepSpeed's async_io, which cannot be built here: "
            f"{str(error).splitlines()[0]}. It takes a C++ compiler, ninja and libaio (Debian: libaio-dev)"
        ) from error
