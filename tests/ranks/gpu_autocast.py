"""A rank on a CPU that DeepSpeed takes for one on a GPU under autocast: it asks for CUDA's, whatever the device is.

What was entered around its engine it then ends.
"""

from __future__ import annotations

import torch

from aiftrain.train import __main__ as trainer


def main(arguments: list[str]) -> int:
    torch.set_autocast_enabled("cuda", True)
    return trainer.main(arguments)
