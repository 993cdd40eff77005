"""Which kernel computes attention: the first in ORDER that this device, this torch and this model can have.

Before one is taken it is tried, forward and backward, against plain attention on two short rows: what a driver or a
build cannot do shows there and not in the first step, and the next one is taken. CPUs have one of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from aiftrain.errors import UserError
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import AttentionKernel, Precision, RunSpec
from aiftrain.train.attention import attend
from aiftrain.train.masks import DENSE, Kernel, make_masks
from aiftrain.train.precision import TYPES
from aiftrain.train.varlen import flash_attn_kernel, torch_kernel

ORDER = ("flash-attn", "varlen", "flex", "dense")  # the package, where someone installed it, is the newer kernel
_LENGTH, _ROWS, _WINDOW = 160, 2, 50  # of the trial: no multiples of a kernel's block
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.02, torch.float32: 1e-3}  # of the largest element
_WIDEST_HEAD = 256  # of flash attention


@dataclass(frozen=True)
class Choice:
    """A kernel, and why the ones before it were not taken."""

    kernel: Kernel
    passed_over: dict[str, str]


@dataclass(frozen=True)
class Site:
    """Where attention is to be computed. `heads` of a rank; `dtype` of queries, keys and values."""

    spec: ModelSpec
    device: torch.device
    dtype: torch.dtype
    compiled: bool

    @classmethod
    def of(cls, spec: RunSpec, precision: Precision, device: torch.device) -> Site:
        """Of one rank of a run."""
        return cls(spec.model, device, TYPES[precision], spec.train.compile)


def choose(site: Site, wanted: AttentionKernel = "auto") -> Choice:
    """The kernel of a run. UserError where a certain one is wanted that cannot be had."""
    if site.device.type == "cpu" and wanted in ("auto", "dense"):
        return Choice(DENSE, {})
    passed_over: dict[str, str] = {}
    for name in ORDER if wanted == "auto" else (wanted,):
        kernel = _prepared(name, site)
        reason = kernel if isinstance(kernel, str) else _fault(kernel, site)
        if not isinstance(kernel, str) and reason is None:
            return Choice(kernel, passed_over)
        passed_over[name] = str(reason)
    raise UserError(f"train.attention={wanted}: {passed_over[wanted]}. train.attention=auto takes what works here")


def _prepared(name: str, site: Site) -> Kernel | str:
    """The kernel of that name, or why it cannot be had."""
    if name == "dense":
        return DENSE
    if name == "flex":
        return Kernel("flex") if site.compiled else "needs train.compile=true"
    reason = next(_against_flash(name, site), None)
    if reason is not None:
        return reason
    try:
        return Kernel("varlen", torch_kernel()) if name == "varlen" else Kernel("flash-attn", flash_attn_kernel())
    except ImportError as error:
        return str(error)


def _against_flash(name: str, site: Site) -> Iterator[str]:
    spec = site.spec
    if site.device.type != "cuda":
        yield "needs a GPU"
    if site.dtype == torch.float32:
        yield "has no fp32"
    if spec.latent is not None:
        yield "wants values as wide as keys"
    if spec.head_size > _WIDEST_HEAD or spec.head_size % 8:
        yield f"wants heads of 8 to {_WIDEST_HEAD} dimensions, in steps of 8"
    if spec.positions == "alibi" and name == "varlen":
        yield "knows no ALiBi"


def _fault(kernel: Kernel, site: Site) -> str | None:
    """What is wrong with a kernel here: it fails, or it differs from plain attention. None: nothing."""
    if kernel == DENSE:
        return None
    try:
        found, expected = _trial(kernel, site), _trial(DENSE, site)
    except Exception as error:  # kernels fail in many ways, and each is a reason to take the next
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    off = max(_distance(*pair) for pair in zip(found, expected, strict=True))
    return None if off <= _TOLERANCE[site.dtype] else f"differs from plain attention by {off:.2g} of the largest value"


def _trial(kernel: Kernel, site: Site) -> list[Tensor]:
    """Results and gradients of one attention with documents, for either kind of layer."""
    generator, tensors = torch.Generator().manual_seed(0), []
    spec = site.spec if site.spec.sliding_window is None else site.spec.model_copy(update={"sliding_window": _WINDOW})
    documents = (torch.arange(_LENGTH) * torch.tensor([[3], [2]]) // _LENGTH).int()
    x = torch.empty(_ROWS, _LENGTH, 1, device=site.device, dtype=site.dtype)
    masks = make_masks(spec, x, documents, kernel=kernel)
    for mask in masks:
        inputs = [_random(shape, generator, site) for shape in _shapes(spec)]
        query, key, value = inputs
        mixed = attend(query, key, value, mask)
        mixed.backward(_random(tuple(mixed.shape), generator, site))
        tensors += [mixed.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]
    return tensors


def _shapes(spec: ModelSpec) -> list[tuple[int, ...]]:
    values = spec.latent.value_dim if spec.latent else spec.head_size
    sizes = ((spec.num_heads, spec.head_size), (spec.num_kv_heads, spec.head_size), (spec.num_kv_heads, values))
    return [(_ROWS, heads, _LENGTH, size) for heads, size in sizes]


def _random(shape: tuple[int, ...], generator: torch.Generator, site: Site) -> Tensor:
    return torch.randn(shape, generator=generator).to(site.device, site.dtype).requires_grad_()


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
