"""What torch.compile is given of a model."""

from __future__ import annotations

import torch

from aiftrain.run.spec import Recompute
from aiftrain.train import loss
from aiftrain.train.model import Decoder


def compile_model(model: Decoder, recompute: Recompute) -> None:
    """Its layers, and the loss of every model in this process."""
    compile_layers(model, recompute)
    loss.loss_and_gradient = torch.compile(loss.loss_and_gradient)


def compile_layers(model: Decoder, recompute: Recompute) -> None:
    """Compile one layer and use it for all: their code is the same, so the wait is one layer's.

    To selective recomputation a compiled layer would be a single operator; there the two are compiled together.
    """
    for name, layer in model.layers.items():
        if recompute == "selective" and model.recomputes(name):
            layer._compiled_call_impl = None  # of a stage before
        else:
            layer.compile()
    if recompute == "selective":
        model.run_layer = torch.compile(model.run_layer)
