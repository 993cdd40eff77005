"""Model FLOPs of a whole run: every stage has sequences, and so attention, of its own."""

from __future__ import annotations

from aiftrain.run.spec import RunSpec


def run_flops(spec: RunSpec) -> float:
    """Forward and backward passes over all tokens, by `ModelSpec.flops_per_token`."""
    spans = spec.timeline.spans()
    tokens = [(phase.sequence_length, steps * phase.tokens_per_step) for phase, steps in spans]
    return sum(spec.model.flops_per_token(length) * count for length, count in tokens)
