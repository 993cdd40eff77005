"""What `bench` leaves behind: bench.cases.json, the training steps to be timed, and bench.json, what was measured."""

from __future__ import annotations

from typing import Any

from aiftrain.run.base import Strict
from aiftrain.run.documents import read_document
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import Execution
from aiftrain.run.spec import Precision, RunSpec

FORMAT = 1


class Missing(Strict):
    """Something that was not measured, and why."""

    what: str
    why: str


class StepCase(Strict):
    """A training step of one strategy: all that an engine is built from. `deepspeed` is what DeepSpeed is given."""

    strategy: str
    spec: RunSpec
    execution: Execution
    deepspeed: dict[str, Any]


class Cases(Strict):
    """The steps to be timed, and the strategies that cannot be."""

    cases: tuple[StepCase, ...]
    missing: tuple[Missing, ...]


class Product(Strict):
    """A product of [m, k] with [k, n], by all ranks at once. TFLOP/s of one rank: the median, and the slowest's."""

    name: str  # square, or which one of the model's
    precision: str
    m: int
    n: int
    k: int
    seconds: float
    tflops: float
    tflops_slowest: float
    repetitions: int


class Stream(Strict):
    """Memory traffic by all ranks at once. `bytes` read and written in one go; GB/s of one rank, as of `Product`."""

    operation: str
    bytes: int
    seconds: float
    gb_per_s: float
    gb_per_s_slowest: float
    repetitions: int


class Transfer(Strict):
    """A message between ranks. `scope`: inside a node, across nodes (one rank of each), or all ranks.

    `bytes` is the whole message: what each rank has after an all-gather and before a reduce-scatter, an all-reduce or
    an all-to-all, and what each of two ranks sends the other in an exchange. `gb_per_s` is what a link carries in one
    direction, whatever the number of ranks: bytes / seconds times (ranks - 1) / ranks, twice that of an all-reduce
    (the bus bandwidth of nccl-tests), and bytes / seconds of an exchange. `seconds` are the slowest rank's.
    """

    operation: str
    scope: str
    ranks: int
    bytes: int
    seconds: float
    gb_per_s: float
    repetitions: int


class Step(Strict):
    """One optimizer step of a strategy: forward, backward, communication and optimizer, without reading data."""

    strategy: str
    precision: Precision
    layers: int
    parameters: int
    tokens: int  # of all ranks
    flops_per_token: float
    seconds: float
    tokens_per_s: float
    peak_memory_gib: float | None  # of a rank's device; None on CPUs
    repetitions: int


class Machine(Strict):
    """Where it was measured. `device` is what its driver or /proc/cpuinfo calls it."""

    factory: str
    hardware: str
    device: str
    nodes: int
    ranks: int
    ranks_per_node: int
    threads: int  # of each rank
    backend: str


Record = Product | Stream | Transfer | Step | Missing


class Bench(Strict):
    """bench.json. Rates in 10^9 bytes and 10^12 FLOPs a second, one rank's; `seconds_taken` in all."""

    format: int = FORMAT
    date: str
    complete: bool = False  # or it was stopped
    seconds_taken: float = 0.0
    recipe: str
    machine: Machine
    versions: dict[str, str]
    products: tuple[Product, ...] = ()
    streams: tuple[Stream, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    steps: tuple[Step, ...] = ()
    missing: tuple[Missing, ...] = ()


def read_bench(folder: RunFolder) -> Bench:
    """What was measured so far. UserError where nothing was, or another aiftrain wrote it."""
    lacking = f"{folder.path} has no measurements: `python -m aiftrain bench` makes them"
    return read_document(folder.bench_json, Bench, lacking)


def read_cases(folder: RunFolder) -> Cases:
    """The steps to be timed. UserError where there are none."""
    return read_document(folder.bench_cases, Cases, f"{folder.path} is no folder of `python -m aiftrain bench`")
