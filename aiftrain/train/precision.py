"""torch's names for what a run computes with."""

from __future__ import annotations

import torch

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
