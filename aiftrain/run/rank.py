"""Who this process is among all ranks, read from the environment its launcher made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiftrain.errors import UserError

# launcher -> the variables that hold rank, world size, rank on the node, ranks on the node
_DIALECTS: dict[str, tuple[str, str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
}


@dataclass(frozen=True)
class Rank:
    """`rank` of `world_size`; `local_rank` of `local_size` on this node; and the launcher that said so."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"


def read_rank(environ: Mapping[str, str]) -> Rank:
    """The rank this environment describes; a lone process where no launcher speaks.

    Raises UserError where a launcher's variables are there but incomplete or no numbers.
    """
    for launcher, names in _DIALECTS.items():
        if names[0] in environ:
            return _read(environ, launcher, names)
    return Rank()


def _read(environ: Mapping[str, str], launcher: str, names: tuple[str, str, str, str]) -> Rank:
    values = []
    for name in names:
        text = environ.get(name, "")
        if not text.isdigit():
            raise UserError(f"{launcher} set {names[0]}={environ[names[0]]} but {name} is {text!r}, not a number")
        values.append(int(text))
    rank, world, local_rank, local_size = values
    if not (rank < world and local_rank < local_size):
        raise UserError(f"{launcher} calls this rank {rank} of {world}, {local_rank} of {local_size} on its node")
    return Rank(rank, world, local_rank, local_size, launcher)
