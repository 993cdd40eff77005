"""How much memory torch holds between a forward and a backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aiftrain.train.model import Decoder


def held_after_forward(model: Decoder, *, sequences: int, bf16: bool) -> int:
    """Bytes that a forward pass of whole sequences leaves allocated on the CPU; bf16: by autocast."""
    length = model.cos.shape[0]
    tokens = torch.zeros(sequences, length, dtype=torch.long)
    documents = torch.zeros(sequences, length, dtype=torch.int32)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
    with torch.profiler.profile(profile_memory=True) as profile, autocast:
        losses = model(tokens, tokens, documents)
    assert losses[0].requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.events())


def saved_by_shape(layer: nn.Module, x: Tensor, *arguments: Any) -> int:
    """Bytes that autograd saves of a layer whose tensors have shapes alone; its weights and `arguments` left out.

    Each storage counts once and whole, as an allocator keeps it.
    """
    given = {tensor for argument in arguments for tensor in argument if isinstance(tensor, Tensor)}
    own = {tensor.untyped_storage()._cdata for tensor in (*layer.parameters(), *given)}
    storages: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        layer(x, None, *arguments)
    return sum(storage.nbytes() for storage in storages.values())
