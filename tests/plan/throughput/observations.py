"""What the tests of calibration share: runs on a processor, with the rates that they would have reached."""

from __future__ import annotations

from typing import Any

from aiftrain.plan.prediction import setting_of
from aiftrain.plan.throughput.calibrate import Observed
from aiftrain.plan.throughput.constants import Calibration, shipped
from aiftrain.plan.throughput.step import step_time
from aiftrain.run.layout import Execution, ParallelLayout, make_layout
from aiftrain.run.spec import RunSpec
from tests.conftest import small_spec

NODE_TFLOPS = 0.2  # of all ranks on the node together, in fp32
MODEL = {
    "name": "small",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
}


def spec_of(ranks: int = 1, *, hidden_size: int = 256, sequence_length: int = 128, **changes: Any) -> RunSpec:
    """A run of that model; `changes` replace whole top-level keys."""
    own: dict[str, Any] = {
        "model": MODEL | {"hidden_size": hidden_size},
        "train": {"steps": 40, "sequence_length": sequence_length, "global_batch": 8, "micro_batch": 4},
        "launcher": {"name": "local", "ranks_per_node": ranks},
    }
    return small_spec(**(own | changes))


def layout_of(spec: RunSpec) -> ParallelLayout:
    layout = make_layout(spec)
    assert isinstance(layout, ParallelLayout)
    return layout


def predicted(spec: RunSpec, calibration: Calibration) -> float:
    """Tokens/s of all ranks."""
    time = step_time(setting_of(spec, layout_of(spec), "fp32", calibration))
    return time.tokens / time.total


def as_measured() -> Calibration:
    """The shipped calibration on a processor of which only the rate of products is known."""
    return shipped().model_copy(update={"measured": {"cpu": {"fp32": NODE_TFLOPS}}})


def observed(spec: RunSpec, factor: float, name: str = "/runs/one", tflops: float | None = NODE_TFLOPS) -> Observed:
    """That run, `factor` times as fast as one would expect."""
    rate = factor * predicted(spec, as_measured())
    return Observed(name, spec, Execution(layout=layout_of(spec), precision="fp32"), rate, tflops)
