"""Where products in 8-bit floating point (`train.fp8`) cannot be had."""

from __future__ import annotations

from aiftrain.errors import Problem
from aiftrain.run.spec import Precision, RunSpec

_STEP = 16  # elements, of torch's scaled products


def fp8_problems(spec: RunSpec, precision: Precision) -> list[Problem]:
    """fp8 where the hardware has none, beside fp32, or for products whose sides are no multiples of 16."""
    recipe, hardware, where = spec.train.fp8, spec.hardware, "train.fp8"
    if recipe == "none":
        return []
    without = "train.fp8=none"
    if not hardware.has_fp8:
        fits = f"{without}, or hardware that has them, such as h100, gh200, b200, mi300x"
        return [Problem(where, f"{recipe}, but {hardware.name} has no 8-bit products", fits)]
    if precision != "bf16":
        return [Problem(where, f"{recipe}, but the run is {precision}", f"{without}, or train.precision=bf16")]
    if not spec.train.compile:
        found = f"{recipe} without train.compile: one by one, the casts take longer than 8 bits save"
        return [Problem(where, found, f"train.compile=true, or {without}")]
    odd = {name: size for name, size in _sides(spec).items() if size % _STEP}
    if odd:
        sides = ", ".join(f"{name} {size}" for name, size in odd.items())
        found = f"{recipe}, but products in 8 bits need sides in steps of {_STEP}, and a rank has {sides}"
        return [Problem(where, found, f"{without}, or sizes that are multiples of {_STEP}")]
    return []


def _sides(spec: RunSpec) -> dict[str, int]:
    """The sides of the matrices that a layer multiplies, on one rank."""
    model, tensor = spec.model, spec.parallelism.tensor
    tokens = spec.train.micro_batch * spec.train.sequence_length // spec.parallelism.sequence
    return {
        "tokens of a micro-batch": tokens,
        "hidden size": model.hidden_size,
        "queries, keys and values": (model.query_size + 2 * model.kv_size) // tensor,
        "attention's result": model.mixed_size // tensor,
        "MLP": model.intermediate_size // tensor,
    }
