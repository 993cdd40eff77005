"""Sets of cores, as the kernel, Slurm and PALS write them."""

from __future__ import annotations

import re

Cores = frozenset[int]

_BINDINGS = re.compile(r"(?:.*,)?(mask_cpu|map_cpu|list):(.*)")  # of srun --cpu-bind, and of PALS mpiexec


def parse_cores(text: str) -> Cores:
    """`0-3,8` as a set; of what is no list of cores, nothing."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def parse_mask(text: str) -> Cores:
    """`0xfe` as a set: bit n is core n. ValueError where it is no hexadecimal number."""
    bits = int(text, 16)
    return frozenset(core for core in range(bits.bit_length()) if bits >> core & 1)


def stated_cores(cpu_bind: str) -> list[Cores]:
    """The cores that a binding gives to the ranks of a node, in their order; empty where it names none.

    Understands Slurm's `mask_cpu:0xfe,0xfe00` and `map_cpu:0,8`, and PALS's `list:0-23:24-47`.
    """
    found = _BINDINGS.fullmatch(cpu_bind)
    if found is None:
        return []
    kind, listed = found.groups()
    try:
        if kind == "mask_cpu":
            return [parse_mask(mask) for mask in listed.split(",")]
        return [parse_cores(part) for part in listed.split("," if kind == "map_cpu" else ":")]
    except ValueError:
        return []  # a form that only newer versions have: better no check than a wrong one
