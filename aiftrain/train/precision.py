"""What a run computes with, in torch's words, and how a model of fp32 weights comes to compute with less."""

from __future__ import annotations

import torch
from torch import nn

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_in(dtype: torch.dtype, model: nn.Module, device: torch.device) -> None:
    """Have the products of `model` be of `dtype` (autocast).

    It is entered inside the model: DeepSpeed's engine ends, on GPUs, an autocast that was entered around it.
    """
    model.forward = torch.autocast(device.type, dtype=dtype)(model.forward)
