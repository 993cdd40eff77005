"""How DeepSpeed moves an optimizer's states between a disk of the node and its memory (ZeRO-Infinity)."""

from __future__ import annotations

from typing import Any

from aiftrain.run.spec import RunSpec

# Elements that come into memory at one time: a buffer of them takes 400 MB, which is long enough for any disk to be at
# its best, and few enough for the buffers of all ranks to take a small part of a node's memory.
PORTION = 100_000_000


def swaps(spec: RunSpec) -> bool:
    return spec.parallelism.offload_optimizer == "nvme"


def swapping_section(spec: RunSpec) -> dict[str, Any]:
    """Of deepspeed.json, under offload_optimizer. The folder is this run's alone: two on one node do not meet."""
    return {"nvme_path": f"{spec.parallelism.nvme_path}/{spec.digest}", "buffer_count": _buffers(spec)}


def buffer_bytes(spec: RunSpec, sharers: int) -> int:
    """In the memory of the node, for one of the `sharers` ranks that share out the states."""
    return 4 * _buffers(spec) * min(PORTION, spec.model.parameters // sharers) if swaps(spec) else 0


def _buffers(spec: RunSpec) -> int:
    """One each for weights, gradients, and what the optimizer keeps."""
    return 2 + max(len(group.states) for group in spec.optimizer.groups)
