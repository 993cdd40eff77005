"""What every optimizer here is to the engine: it asks its gate, has all its states from the start, averages weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from aiftrain.run.optimizer import AVERAGE
from aiftrain.train.optimizers.gate import Gate

State = dict[str, Tensor]


class GatedOptimizer(torch.optim.Optimizer, ABC):
    """Updates the weights where its gate lets it, and then moves their average after them.

    The tensors that it updates are whole parameters without ZeRO, else DeepSpeed's flat fp32 parts of them: an
    update has to be elementwise, or to know what lies where. DeepSpeed calls `step` once for all groups or once for
    each, with only that one in `param_groups`. Each group has the names of its `states`.
    """

    gate: Gate
    ema_decay: float | None = None
    counts_on_device = False  # whether the step count lies where the weights do

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if self.gate.is_open:
            self.update()
            if self.ema_decay is not None:
                self._average(1 - self.ema_decay)

    @abstractmethod
    def update(self) -> None:
        """One step of all groups at hand, by the gradients and learning rates that they have."""

    def make_state(self, weights: Tensor, group: dict[str, Any]) -> None:
        """What is kept of `weights`, a tensor of `group`, before the first step: zeros, but their average is they."""
        state: State = {name: torch.zeros_like(weights.data) for name in group["states"]}
        if AVERAGE in state:
            state[AVERAGE].copy_(weights.data)
        state["step"] = torch.zeros((), dtype=torch.float32, device=weights.device if self.counts_on_device else "cpu")
        self.state[weights] = state

    def _average(self, share: float) -> None:
        weights = [tensor for group in self.param_groups for tensor in group["params"]]
        torch._foreach_lerp_([self.state[tensor][AVERAGE] for tensor in weights], weights, share)


class AdamW(GatedOptimizer, torch.optim.AdamW):
    """torch's fused AdamW (arXiv 1711.05101)."""

    counts_on_device = True  # the fused kernel on a GPU wants it

    def update(self) -> None:
        torch.optim.AdamW.step(self)
