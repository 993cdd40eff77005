"""Attention by document: all rows of a micro-batch laid end to end, and a kernel that is told where documents begin.

Nothing of size length x length exists, and no work is done between documents. torch >= 2.11 brings such a kernel
(torch.nn.attention.varlen); the package flash-attn has one that adds ALiBi's slopes as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

_FEWEST = 64  # documents that bounds have room for: a compiled layer sees few different shapes
_SHORTEST = 128

FlatKernel = Callable[[Tensor, Tensor, Tensor, "Documents"], Tensor]


class Documents(NamedTuple):
    """Where documents begin and end in a micro-batch whose rows are laid end to end.

    bounds int32 [documents + 1], on the device; equal bounds at its end are documents without tokens. No document has
    more tokens than `longest`. A token sees `window` tokens, itself the last of them; None: all before it.
    """

    kernel: FlatKernel
    bounds: Tensor
    longest: int
    window: int | None
    slopes: Tensor | None  # ALiBi's, fp32 [heads]

    @property
    def reach(self) -> tuple[int, int]:
        """Tokens that one may look back and ahead, besides itself; -1: all."""
        return -1 if self.window is None else self.window - 1, 0


def find_documents(documents: Tensor) -> tuple[Tensor, int]:
    """`bounds` and `longest` of documents [batch, length]. Where these lie on a device, it has to be waited for."""
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = first.flatten().nonzero().flatten()
    bounds = starts.new_full((_room(len(starts) + 1, _FEWEST),), documents.numel(), dtype=torch.int32)
    bounds[: len(starts)] = starts
    return bounds, min(_room(int(bounds.diff().max()), _SHORTEST), documents.shape[1])


def _room(count: int, least: int) -> int:
    """The power of two that `count` fits into."""
    return max(least, 1 << (count - 1).bit_length())


def attend_by_document(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
    """Causal attention inside documents, [batch, heads, length, head size] each; fewer keys and values than queries.

    They are copied where they are parts of the product that gave all three: it would stay until the backward pass.
    """
    batch, _, length, _ = query.shape
    query, key = query.to(value.dtype), key.to(value.dtype)  # norms of them leave fp32 under autocast
    query, key, value = (part.transpose(1, 2).flatten(0, 1).contiguous() for part in (query, key, value))
    mixed: Tensor = documents.kernel(query, key, value, documents).unflatten(0, (batch, length))
    return mixed.transpose(1, 2)


def torch_kernel() -> FlatKernel:
    """torch's own flash attention. ImportError where this torch has none that knows windows."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known:
        raise ImportError(f"varlen_attn of torch {torch.__version__} knows no windows: torch >= 2.11 does")
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}  # an older one sees it by itself

    def attend(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        bounds, longest = documents.bounds, documents.longest
        return cast(
            Tensor,
            varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=documents.reach, **grouped),
        )

    return attend


def flash_attn_kernel() -> FlatKernel:
    """The package flash-attn. ImportError where it is not installed."""
    from flash_attn import flash_attn_varlen_func

    def attend(query: Tensor, key: Tensor, value: Tensor, documents: Documents) -> Tensor:
        bounds, longest = documents.bounds, documents.longest
        mixed: Tensor = flash_attn_varlen_func(
            *(query, key, value, bounds, bounds, longest, longest),
            causal=True,
            window_size=documents.reach,
            alibi_slopes=documents.slopes,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return mixed

    return attend
