"""Attention by a block mask: flex_attention, which the compiler turns into one kernel that skips what is masked.

It takes what flash attention does not: ALiBi, values narrower than keys, fp32. Without a compiler it would hold all
scores, so it is chosen for compiled layers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class BlockMask(NamedTuple):
    """Blocks of queries and keys that see each other, and ALiBi's slopes [heads] in the type of the scores."""

    blocks: Any  # torch.nn.attention.flex_attention.BlockMask
    slopes: Tensor | None


def block_mask(documents: Tensor, window: int | None, slopes: Tensor | None) -> BlockMask:
    """documents [batch, length] on the device. A token sees `window` tokens of its document, itself the last."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, length = documents.shape

    def sees(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (documents[row, query] == documents[row, key]) & (query >= key)
        return inside if window is None else inside & (query - key < window)

    make = _compiled(create_block_mask) if documents.device.type != "cpu" else create_block_mask
    return BlockMask(make(sees, batch, None, length, length, device=str(documents.device)), slopes)


def attend_by_blocks(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask) -> Tensor:
    """[batch, heads, length, head size] each; keys and values may have fewer heads, each for a group of queries."""
    from torch.nn.attention.flex_attention import flex_attention

    slopes = mask.slopes

    def with_slopes(score: Tensor, _: Tensor, head: Tensor, position: Tensor, earlier: Tensor) -> Tensor:
        assert slopes is not None
        return score - slopes[head] * (position - earlier)

    query, key = query.to(value.dtype), key.to(value.dtype)  # norms of them leave fp32 under autocast
    itself = query.device.type == "cpu" or torch.compiler.is_compiling()  # a compiled layer takes it in
    attend: Any = flex_attention if itself else _compiled(flex_attention)
    score_mod = None if slopes is None else with_slopes
    mixed: Tensor = attend(
        query, key, value, score_mod=score_mod, block_mask=mask.blocks, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)
