"""A rank on a CPU whose attention refuses a batch of no rows, as GPUs' kernels do (pytorch issue 133780)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from aiftrain.train import __main__ as trainer


def main(arguments: list[str]) -> int:
    attend = F.scaled_dot_product_attention

    def attend_to_some(query: Tensor, *others: Any, **options: Any) -> Tensor:
        if not len(query):
            raise RuntimeError("batch size must be positive")
        return attend(query, *others, **options)

    F.scaled_dot_product_attention = attend_to_some
    return trainer.main(arguments)
