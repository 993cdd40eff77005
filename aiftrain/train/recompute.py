"""Activation recomputation: what a layer keeps for its backward pass, and what it computes again there.

`full` keeps a layer's input and computes the whole layer twice (arXiv 1604.06174). `selective` keeps the results
of matrix products and of attention as well, and computes again what is cheap: norms, rotary turns, SwiGLU's
product. Layers draw no random numbers, so no generator's state is kept for the second time. By interval, one layer
of several is treated so and the others keep everything: memory and time lie between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from aiftrain.run.spec import Recompute

Run = Callable[..., Any]  # (layer, *arguments) -> what the layer gives
Contexts = tuple[AbstractContextManager[object], AbstractContextManager[object]]

_aten = torch.ops.aten
_DEAR_BY_NAME = ("torch_attn._varlen_attn.default", "flash_attn._flash_attn_varlen_forward.default", "flex_attention")
_DEAR = frozenset(
    packet.default
    for packet in (
        _aten.mm,
        _aten.addmm,
        _aten.bmm,
        _aten._scaled_dot_product_flash_attention,
        _aten._scaled_dot_product_flash_attention_for_cpu,
        _aten._scaled_dot_product_efficient_attention,
        _aten._scaled_dot_product_cudnn_attention,
        torch.ops._c10d_functional.all_reduce,  # of tensor parallelism
        torch.ops._c10d_functional.all_to_all_single,  # of sequence and expert parallelism
        torch.ops._c10d_functional.wait_tensor,
    )
)


def runner(mode: Recompute) -> Run:
    """How the decoder calls its layers under `mode`. Without gradients nothing is kept or computed again."""
    if mode == "none":
        return run_plainly
    contexts = _selective_contexts if mode == "selective" else noop_context_fn
    return partial(_recomputed, contexts)


def run_plainly(layer: Run, *arguments: Any) -> Any:
    return layer(*arguments)


def _recomputed(contexts: Callable[[], Contexts], layer: Run, *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return layer(*arguments)
    return checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _selective_contexts() -> Contexts:
    contexts: Contexts = create_selective_checkpoint_contexts(_keep_dear)
    return contexts


def _keep_dear(_: object, operator: object, *arguments: object, **options: object) -> CheckpointPolicy:
    dear = operator in _DEAR or str(operator) in _DEAR_BY_NAME
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
