"""Counts what ranks say to each other: what passes torch's dispatcher, DeepSpeed's collectives among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_COLLECTIVES = {
    "_c10d_functional.all_reduce": "all-reduce",
    "_c10d_functional.all_gather_into_tensor": "all-gather",
    "_c10d_functional.reduce_scatter_tensor": "reduce-scatter",
    "_c10d_functional.all_to_all_single": "all-to-all",
    "c10d.allreduce_": "all-reduce",
    "c10d.allgather_": "all-gather",
    "c10d._allgather_base_": "all-gather",
    "c10d.allgather_into_tensor_coalesced_": "all-gather",
    "c10d._reduce_scatter_base_": "reduce-scatter",
    "c10d.reduce_scatter_tensor_coalesced_": "reduce-scatter",
    "c10d.alltoall_base_": "all-to-all",
    "c10d.reduce_": "reduce",
    "c10d.broadcast_": "broadcast",
    "c10d.send": "send",
}
_INPUT_IS_SECOND = {"all-gather", "reduce-scatter", "all-to-all"}  # of those that write into what they are given


class Traffic(TorchDispatchMode):
    """While it is entered, `bytes[kind]` grows by what this rank hands to collectives of a kind, `calls[kind]` by one.
    What it sends to a single rank is of the kind "send".

    An all-to-all is handed what stays here as well.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(getattr(func, "overloadpacket", func))
        kind = _COLLECTIVES.get(name)
        if kind is not None:
            place = int(name.startswith("c10d.") and kind in _INPUT_IS_SECOND)
            self.calls[kind] += 1
            self.bytes[kind] += sum(tensor.nbytes for tensor in _tensors(args[place]))
        return func(*args, **(kwargs or {}))


def _tensors(handed: Any) -> Iterator[Tensor]:
    """The tensors in nested lists of them."""
    if isinstance(handed, Tensor):
        yield handed
    elif isinstance(handed, list | tuple):
        for each in handed:
            yield from _tensors(each)
