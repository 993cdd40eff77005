"""One layer on one rank: the time of its products, its attention and its memory traffic, for one micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

from aiftrain.plan.throughput.constants import Constants, Stack
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware
from aiftrain.run.model import ModelSpec

_REFERENCE_TFLOPS = 271.0  # the device on which `tile` is stated: an A100
_FULL_HEAD = 128  # dimensions of a head that keep the matrix units busy
_UNMEASURED_SHARE = 0.73  # of a data sheet's rate: the least that was measured of A100, H100, GH200, B200 and GB200
_UNMEASURED_BANDWIDTH = 4.0  # GB/s a TFLOP/s of products: the least of A100, H100, GH200 and GB200 ...
_CPU_BANDWIDTH = 200.0  # ... and about what server processors have in fp32


class UnknownFigure(Exception):
    """A figure of the hardware that nobody documents, and without which no time can be told."""

    def __init__(self, hardware: Hardware, figure: str) -> None:
        super().__init__(f"nobody documents hardware.{figure} of {hardware.name}")


@dataclass(frozen=True, slots=True)
class Device:
    """What one device does in a second: products in FLOPs, attention in FLOPs, memory traffic in bytes."""

    linear: float
    experts: float
    attention: float
    memory: float
    tile: float
    stream: float  # memory traffic of products, which read and write once
    cast: float  # bytes that each input of a product costs besides
    element: int  # bytes of an activation

    @classmethod
    def of(cls, hardware: Hardware, precision: str, constants: Constants, stack: Stack) -> Device:
        """Raises UnknownFigure."""
        rate = matmul_tflops(hardware)
        memory = memory_gb_per_s(hardware)
        bf16 = rate * 1e12 * constants.matmul_share * constants.hardware.get(hardware.name, 1.0)
        bf16 /= constants.stacks.get(stack.name, 1.0)
        linear = bf16 * gain(hardware, precision, constants)
        factor = constants.hardware.get(hardware.name, 1.0)
        bandwidth = memory * 1e9 * constants.memory_share * factor
        return cls(
            linear=linear,
            experts=linear * constants.expert_share,
            attention=min(bf16, linear) * _attention_share(hardware, constants, stack),
            memory=bandwidth / (constants.traffic * stack.eager),
            tile=constants.tile * (rate / _REFERENCE_TFLOPS) ** 0.5,
            stream=bandwidth,
            cast=constants.cast_bytes if linear > bf16 else 0.0,
            element=element_bytes(precision),
        )

    def product(self, m: float, n: float, k: float, rate: float | None = None) -> float:
        """Seconds of one product of [m, k] with [k, n]."""
        waste = (1 + self.tile / m) * (1 + self.tile / n) * (1 + self.tile / k)
        moved = self.element * (m * k + k * n + m * n) + self.cast * (m * k + k * n)
        return 2.0 * m * n * k * waste / (rate or self.linear) + moved / self.stream


def matmul_tflops(hardware: Hardware) -> float:
    """The best measured rate, or where nobody measured a share of the data sheet's. Raises UnknownFigure."""
    if hardware.matmul_bf16_tflops is not None:
        return hardware.matmul_bf16_tflops
    peak = hardware.peak_bf16_tflops or (None if hardware.bf16 else hardware.peak_fp16_tflops)
    if peak is None:
        raise UnknownFigure(hardware, "matmul_bf16_tflops" if hardware.is_cpu else "peak_bf16_tflops")
    return _UNMEASURED_SHARE * peak


def memory_gb_per_s(hardware: Hardware) -> float:
    """The documented bandwidth of a device's memory, or one that fits its matmul rate. Raises UnknownFigure."""
    each = _CPU_BANDWIDTH if hardware.is_cpu else _UNMEASURED_BANDWIDTH
    return hardware.memory_gb_per_s or matmul_tflops(hardware) * each


def element_bytes(precision: str) -> int:
    """Of an activation, and of a weight as it travels."""
    return 4 if precision in ("fp32", "tf32") else 2


def _attention_share(hardware: Hardware, constants: Constants, stack: Stack) -> float:
    """What attention reaches of the rate of large products."""
    if not stack.attention.startswith("flash"):
        return constants.unfused_share
    share = constants.flash_share
    if stack.attention == "flash-ampere" and matmul_tflops(hardware) > 2 * _REFERENCE_TFLOPS:
        share *= constants.ampere_share
    return share * constants.flash_1_share if stack.attention == "flash-1" else share


def gain(hardware: Hardware, precision: str, constants: Constants) -> float:
    """How much faster than 16-bit ones the products of linear layers are."""
    peak, fp8 = hardware.peak_bf16_tflops, hardware.peak_fp8_tflops
    if "fp8" in precision and peak and fp8:
        return 1 + (fp8 / peak - 1) * constants.fp8_share
    if "fp4" in precision and peak and fp8:
        return 1 + (2 * fp8 / peak - 1) * constants.fp4_share
    if precision == "tf32":
        return 0.5  # by the data sheets of A100, H100 and B200
    return _fp32_share(hardware) if precision == "fp32" else 1.0


def _fp32_share(hardware: Hardware) -> float:
    """The rate of fp32 products over that of 16-bit ones, by the data sheets; a CPU's rate is that of its precision."""
    if hardware.is_cpu:
        return 1.0
    if hardware.kind == "rocm":
        return 1 / 8 if hardware.peak_fp8_tflops else 1 / 4  # MI300: 163 of 1,307; MI250X: 95.7 of 383
    return 1 / 16 if hardware.bf16 else 1 / 8  # A100: 19.5 of 312, without TF32; V100: 15.7 of 125


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Seconds of one layer for one micro-batch, without communication."""

    forward: float
    backward: float


def layer_time(
    model: ModelSpec,
    layout: ParallelLayout,
    length: int,
    device: Device,
    constants: Constants,
    stack: Stack,
    *,
    experts: bool,
    window: bool,
) -> LayerTime:
    """Forward and backward of one layer on one rank; recomputation counts as backward."""
    tensor = layout.tensor_parallel
    tokens = layout.micro_batch * length / layout.context_parallel
    linear = _attention_products(model, tokens, tensor, device)
    if experts:
        linear += _expert_products(model, layout, tokens, device)
    else:
        linear += _mlp(model, tokens, model.intermediate_size / tensor, device)
    mixing = _mixing(model, tokens, length, tensor, device, window=window)
    passes = {"fused-softmax": constants.score_passes, "unfused": constants.unfused_passes}.get(stack.attention, 0.0)
    flash = passes == 0.0
    scores = passes * device.element * tokens * length * model.num_heads / tensor / device.stream
    moved = device.element * _traffic(model, layout, tokens, experts=experts) / device.memory
    forward = linear + mixing + moved + scores
    # The backward pass has two products for each of the forward; attention in one kernel computes its scores again.
    backward = 2 * linear + (2.5 if flash else 2.0) * mixing + 2 * moved + 2 * scores
    again = {"none": 0.0, "selective": moved if flash else mixing + scores, "full": forward}[layout.recompute]
    return LayerTime(forward, backward + again * layout.recomputed_share(range(model.num_layers)))


def head_time(model: ModelSpec, layout: ParallelLayout, length: int, device: Device) -> float:
    """Seconds of the output projection and the loss, forward and backward, for one micro-batch."""
    tokens = layout.micro_batch * length / layout.context_parallel
    vocabulary = model.vocab_size / layout.tensor_parallel
    moved = 5 * 4 * tokens * vocabulary  # logits and their gradient pass memory in fp32
    return 3 * device.product(tokens, vocabulary, model.hidden_size) + moved / device.memory


def _attention_products(model: ModelSpec, tokens: float, tensor: int, device: Device) -> float:
    """Projections to queries, keys and values, and back. Latent attention counts by its weights."""
    if model.latent:
        columns = model.attention_matmul_parameters / model.hidden_size
        return device.product(tokens, columns / tensor, model.hidden_size)
    into = device.product(tokens, (model.query_size + 2 * model.kv_size) / tensor, model.hidden_size)
    return into + device.product(tokens, model.hidden_size, model.query_size / tensor)


def _mlp(model: ModelSpec, tokens: float, width: float, device: Device, rate: float | None = None) -> float:
    up = (2 if model.gated else 1) * width
    hidden = model.hidden_size
    return device.product(tokens, up, hidden, rate) + device.product(tokens, hidden, width, rate)


def _expert_products(model: ModelSpec, layout: ParallelLayout, tokens: float, device: Device) -> float:
    """The experts on this rank, each with its part of the tokens of all ranks that share the experts out."""
    moe = model.moe
    assert moe is not None
    here = max(1.0, moe.num_experts / layout.expert_parallel)
    routed = tokens * moe.experts_per_token / layout.tensor_parallel
    each = max(1.0, routed / here)
    time = here * _mlp(model, each, moe.expert_intermediate_size, device, device.experts)
    if moe.shared_intermediate_size:
        time += _mlp(model, tokens, moe.shared_intermediate_size / layout.tensor_parallel, device)
    return time


def _mixing(model: ModelSpec, tokens: float, length: int, tensor: int, device: Device, *, window: bool) -> float:
    """Scores and weighted values, causal: half of the square, or a band of it."""
    reach = min(model.sliding_window or length, length) if window else length
    context = reach - reach**2 / (2 * length)
    short = 1 + max(0.0, _FULL_HEAD / model.head_size - 1) / 3  # the narrower the heads, the more of it is softmax
    return 2.0 * tokens * context * (model.query_size + model.mixed_size) * short / tensor / device.attention


def _traffic(model: ModelSpec, layout: ParallelLayout, tokens: float, *, experts: bool) -> float:
    """Least elements that norms, residuals, rotary embedding and the MLP's activation move in the forward pass."""
    tensor = layout.tensor_parallel
    split = tensor if layout.sequence_parallel else 1
    residual = 10 * model.hidden_size / split  # two norms: 2 each; two residuals: 3 each
    rotary = 2 * (model.query_size + model.kv_size) / tensor
    width = model.intermediate_size
    if experts:
        assert model.moe is not None
        moe = model.moe
        width = moe.experts_per_token * moe.expert_intermediate_size + moe.shared_intermediate_size
        residual += 4 * moe.experts_per_token * model.hidden_size / tensor  # sent out and brought together again
    activation = (3 if model.gated else 2) * width / tensor
    return tokens * (residual + rotary + activation)
