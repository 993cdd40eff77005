"""What training software holds in memory: bytes a parameter, what its kernels keep, and what it buffers.

Each software is one value of `EngineTraits`; the formulas that read them are in activations.py and memory_use.py.
`libraries` and `fragmentation` are fitted (benchmarks/planner_memory.py); everything else follows from the software.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Attention = Literal["flash", "fused softmax", "unfused"]
Selective = Literal["pointwise", "attention"]

NEVER = 4  # a ZeRO stage that nobody has
_GIB = 2**30


@dataclass(frozen=True)
class EngineTraits:
    """One software's habits. Bytes are of one parameter, with bf16 products unless said otherwise.

    `*_from` is the ZeRO stage from which a part is shared out over the data-parallel ranks.
    """

    name: str
    weights: int = 2
    gradients: int = 4  # summed over micro-batches
    masters: int = 4  # fp32 weights beside the shorter ones
    states: float = 8  # of the optimizer: AdamW's two moments
    fp32_masters: int = 0  # a second copy of weights that are fp32 anyway, of the rank's own part
    step_copies: int = 0  # what a step with fp32 weights needs for its own length, of the rank's own part
    autocast_stages: tuple[int, ...] = ()  # stages at which bf16 is autocast over fp32 weights
    weights_from: int = 3
    gradients_from: int = 2
    optimizer_from: int = 1
    attention: Attention = "flash"
    repeats_kv: bool = False  # keys and values are copied for every query head
    splits_qkv: bool = False  # what the product of queries, keys and values gave stays, for the values are in it
    joins_blocks: bool = False  # attention's result is copied together from blocks of queries
    fused_norm: bool = True  # keeps its input alone
    fused_mlp: bool = False  # the activation's result is computed again instead of kept
    selective: Selective = "pointwise"  # what selective recomputation computes again
    loss_chunk: int | None = None  # tokens whose logits exist at one time; None: all of a micro-batch
    logit_bytes: int = 16  # of one logit while its loss is taken: itself, fp32, log-probability, both gradients
    vocabulary_parallel: bool = True  # tensor parallelism shares out the logits
    document_mask: bool = False  # a mask of every pair of tokens exists
    bucket_elements: int = 0  # gradients reduced at one time
    buckets: int = 1
    gathered_layers: int = 0  # layers whose weights are whole at one time, where weights are shared out
    live_elements: int = 0  # parameters that stay gathered for their next use
    weights_on_host: bool = False  # where weights are shared out: in the CPUs' memory, while no layer needs them
    optimizer_on_host: bool = False  # its states, and the fp32 masters
    secondary_group: int = 1  # ranks that together hold one more copy of the weights, at stage 3
    libraries: int = 3 * _GIB // 2  # the device's context, the libraries' kernels, NCCL's channels
    fragmentation: float = 0.1  # of what comes and goes: the allocator's rounding, and holes that nothing fits in


OURS = EngineTraits(
    name="aiftrain",
    fp32_masters=4,
    step_copies=4,
    autocast_stages=(0,),
    loss_chunk=1024,
    logit_bytes=16,  # the logit, its fp32 copy, two fp32 steps of its gradient, and that as the logit is
    bucket_elements=50_000_000,  # and live_elements: unless the run says, as room.py asks it
    buckets=2,
    gathered_layers=2,
    live_elements=1_000_000_000,  # DeepSpeed's default stage3_max_live_parameters
)
OURS_DENSE = replace(  # where no kernel takes documents one by one
    OURS,
    name="aiftrain with dense masks",
    repeats_kv=True,
    splits_qkv=True,
    document_mask=True,
)
OURS_ON_CPU = replace(
    OURS_DENSE,
    name="aiftrain on CPUs",
    autocast_stages=(0, 1, 2, 3),
    joins_blocks=True,
    fused_norm=False,
    buckets=1,
    libraries=_GIB,
    fragmentation=0.0,
)
MEGATRON = EngineTraits(
    name="Megatron-LM",
    weights_from=NEVER,
    gradients_from=NEVER,  # one fp32 buffer that all micro-batches add to
    fused_mlp=True,
    selective="attention",
)
MEGATRON_DEEPSPEED = replace(
    MEGATRON,
    name="Megatron-DeepSpeed",
    gradients=2,  # what DeepSpeed sums them in unless told otherwise
    weights_from=3,
    gradients_from=2,
    fused_mlp=False,
    live_elements=1_000_000_000,
)
FSDP = EngineTraits(
    name="FSDP",
    weights=4,  # fp32 masters are shared out; bf16 copies exist while they are gathered
    masters=0,
    gathered_layers=2,
)
