"""A rank of a run with fp16 weights, on any CPU: DeepSpeed refuses them where a CPU has no instructions for fp16."""

from __future__ import annotations

from deepspeed.accelerator import get_accelerator

from aiftrain.train import __main__ as trainer


def main(arguments: list[str]) -> int:
    get_accelerator().is_fp16_supported = lambda: True  # torch computes them all the same, slowly
    return trainer.main(arguments)
