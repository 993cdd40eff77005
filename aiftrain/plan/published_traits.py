"""Which engine traits stand behind the software column of published tables of training speed."""

from __future__ import annotations

from dataclasses import replace

from aiftrain.plan.engine_traits import FSDP, MEGATRON, MEGATRON_DEEPSPEED, EngineTraits

LLM_FOUNDRY = replace(
    FSDP,
    name="llm-foundry",
    logit_bytes=4,  # flash-attn's cross-entropy: bf16 logits, and their gradient
)
ALEPH_ALPHA = replace(  # arXiv 2311.05610: ZeRO-1, bf16 gradients, every tensor-parallel rank has all logits
    MEGATRON,
    name="Aleph Alpha",
    gradients=2,
    fused_mlp=False,
    vocabulary_parallel=False,
    fused_norm=False,
    attention="unfused",
    fragmentation=0.25,  # fitted: benchmarks/planner_memory.py
)


def traits_of(software: str, notes: str = "") -> EngineTraits:
    """The traits of `software` as published tables name it; `notes` may name the kernels that it ran with."""
    name = software.lower()
    if "aleph alpha" in name:
        return _with_kernels(ALEPH_ALPHA, notes.lower())
    if "foundry" in name or "composer" in name:
        return LLM_FOUNDRY
    if any(word in name for word in ("fsdp", "torchtitan", "modalities", "lit-gpt")):
        return FSDP
    return MEGATRON_DEEPSPEED if "deepspeed" in name else MEGATRON


def _with_kernels(traits: EngineTraits, notes: str) -> EngineTraits:
    """The study names its kernels: torch, fused (softmax), flash_attention of some version, and RMS kernel or not."""
    fused_norm = "rms kernel" in notes
    if "flash_attention" in notes:
        return replace(traits, attention="flash", fused_norm=fused_norm)
    return replace(traits, attention="fused softmax", fused_norm=fused_norm) if "kernel: fused" in notes else traits
