"""The MLP of a layer and its activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aiftrain.run.model import ModelSpec
from aiftrain.train.mesh import ALONE, Axis, Mesh
from aiftrain.train.tensor_parallel import JoinLinear, SplitLinear, copy_to

Activation = Callable[[Tensor], Tensor]


class MLP(nn.Module):
    """down(activation(gate(x)) * up(x)), gate and up in one product; or down(activation(up(x))) without a gate.

    The ranks of a tensor share out what lies between.
    """

    def __init__(self, spec: ModelSpec, intermediate_size: int, mesh: Mesh = ALONE) -> None:
        super().__init__()
        self.gated, self.tensor = spec.gated, mesh.tensor
        hidden, inner = spec.hidden_size, intermediate_size
        if spec.gated:
            self.gate_up = SplitLinear(hidden, (inner, inner), mesh.tensor, bias=spec.mlp_bias)
        else:
            self.up = SplitLinear(hidden, (inner,), mesh.tensor, bias=spec.mlp_bias)
        self.activation = activation(spec, mesh.tensor)
        self.down = JoinLinear(inner, hidden, mesh.tensor, bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = copy_to(x, self.tensor)
        if self.gated:
            gate, up = self.gate_up(x).chunk(2, dim=-1)
            inner = self.activation(gate) * up
        else:
            inner = self.activation(self.up(x))
        out: Tensor = self.down(inner)
        return out


class XIELU(nn.Module):
    """Expanded integral of the exponential linear unit (arXiv 2411.13010): quadratic above 0, with two weights.

    Its slope at 0 is `_SLOPE`; the weights pass through a softplus so that both sides stay convex.
    """

    _SLOPE, _FIRST = 0.5, 0.8  # at 0; of both weights at the start, after the softplus

    def __init__(self, axis: Axis) -> None:
        super().__init__()
        self.axis = axis
        self.positive = nn.Parameter(torch.empty(1))
        self.negative = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor) -> Tensor:
        positive, negative = (F.softplus(copy_to(weight, self.axis)) for weight in (self.positive, self.negative))
        negative = self._SLOPE + negative
        below = x.clamp(max=0)  # so that expm1 cannot overflow on the side that is not taken
        curve = torch.where(x > 0, positive * x * x, negative * (torch.expm1(below) - x))
        return (curve + self._SLOPE * x).to(x.dtype)

    @classmethod
    def first_value(cls, name: str) -> float:
        """What a weight begins with."""
        start = cls._FIRST - (cls._SLOPE if name.endswith("negative") else 0)
        return math.log(math.expm1(start))


def activation(spec: ModelSpec, axis: Axis) -> Activation:
    """The activation function of a shape; GELU in the form with tanh, as GPT-2 and BLOOM have it."""
    functions: dict[str, Activation] = {
        "swiglu": F.silu,
        "geglu": _gelu,
        "gelu": _gelu,
        "relu": F.relu,
        "relu2": _squared_relu,
    }
    return XIELU(axis) if spec.mlp == "xielu" else functions[spec.mlp]


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()
