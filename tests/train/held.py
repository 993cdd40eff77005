"""How much memory torch holds between a forward and a backward pass, from its profiler's record of the allocator."""

from __future__ import annotations

import torch

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
