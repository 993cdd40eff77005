"""AdEMAMix (arXiv 2409.03137): AdamW with a second average of the gradients that forgets very slowly.

Elementwise, so that it runs on any part of a parameter. All schedules are pure functions of the step.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from aiftrain.run.optimizer import AdemamixSpec
from aiftrain.train.optimizers.base import GatedOptimizer, State

# Elements. On a CPU they stay in its cache, and are too few for torch to wake other threads for each of the operations;
# on a GPU they bound the memory that these need.
_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}


def alpha(spec: AdemamixSpec, step: int) -> float:
    """The slow average's weight in step `step`, counted from 1 (section 3, "Handling early training instabilities")."""
    return spec.alpha * min(1.0, step / spec.alpha_steps) if spec.alpha_steps else spec.alpha


def beta3(spec: AdemamixSpec, beta1: float, step: int) -> float:
    """The slow average's decay in step `step`, counted from 1: its half-life rises linearly from that of `beta1`."""
    if step >= spec.beta3_steps:
        return spec.beta3
    begun, ended = (math.log(0.5) / math.log(beta) - 1 for beta in (beta1, spec.beta3))  # steps until half is forgotten
    done = step / spec.beta3_steps
    return float(0.5 ** (1 / ((1 - done) * begun + done * ended + 1)))


class AdEMAMix(GatedOptimizer):
    """`betas` of a group are those of the fast average and of the squares."""

    def __init__(self, groups: list[dict[str, Any]], spec: AdemamixSpec, **defaults: Any) -> None:
        super().__init__(groups, defaults)
        self.spec = spec

    def update(self) -> None:
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._update(weights, weights.grad, self.state[weights], group)

    def _update(self, weights: Tensor, grad: Tensor, state: State, group: dict[str, Any]) -> None:
        state["step"] += 1
        step = int(state["step"])
        size = _AT_ONCE[weights.device.type]
        tensors = (weights, grad, state["exp_avg"], state["exp_avg_slow"], state["exp_avg_sq"])
        for parts in zip(*(tensor.view(-1).split(size) for tensor in tensors), strict=True):
            mix(*parts, step=step, spec=self.spec, group=group)


def mix(
    weights: Tensor,
    grad: Tensor,
    fast: Tensor,
    slow: Tensor,
    squares: Tensor,
    *,
    step: int,
    spec: AdemamixSpec,
    group: dict[str, Any],
) -> None:
    """Algorithm 1 of the paper, in place, on equally many elements of each; factors are drawn together."""
    beta1, beta2 = group["betas"]
    fast.lerp_(grad, 1 - beta1)
    slow.lerp_(grad, 1 - beta3(spec, beta1, step))
    squares.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction = math.sqrt(1 - beta2**step)
    root = squares.rsqrt().reciprocal_()  # sqrt wakes all threads of a CPU, however few elements there are
    scale = root.add_(group["eps"] * correction)
    rate = -group["lr"] * correction
    weights.mul_(1 - group["lr"] * group["weight_decay"])
    weights.addcdiv_(fast, scale, value=rate / (1 - beta1**step))
    weights.addcdiv_(slow, scale, value=rate * alpha(spec, step))
