"""What a bench says while it goes, and what its figures come to: best rates, latencies, bandwidths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from aiftrain.run.bench import Bench, Missing, Product, Record, Step, Stream, Transfer, read_bench
from aiftrain.run.folder import RunFolder

_LOOK_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class Link:
    """One operation in one scope: microseconds of the smallest message, GB/s at the best size."""

    operation: str
    scope: str
    ranks: int
    latency_us: float
    gb_per_s: float


def follow(folder: RunFolder, running: Callable[[], bool], console: Console) -> None:
    """A line for each figure, until `running()` is false; what came last is still shown."""
    shown: set[Record] = set()
    while running():
        _say_new(folder, shown, console)
        time.sleep(_LOOK_EVERY)
    _say_new(folder, shown, console)


def records(bench: Bench) -> Iterator[Record]:
    """All figures, in the order of measuring."""
    for figures in (bench.products, bench.streams, bench.transfers, bench.steps, bench.missing):
        yield from figures


def line(record: Record) -> str:
    """A figure in one line."""
    match record:
        case Product():
            shape = f"{record.m} x {record.n} x {record.k}"
            return f"product  {record.precision}  {shape:<22} {rate(record.tflops):>9} TFLOP/s  {record.name}"
        case Stream():
            return f"memory   {record.operation:<28} {rate(record.gb_per_s):>9} GB/s"
        case Transfer():
            what = f"{record.operation} {record.scope}"
            message = f"{size(record.bytes):>9} {rate(record.gb_per_s):>9} GB/s"
            return f"link     {what:<30} {message} {duration(record.seconds):>9}"
        case Step():
            speed = f"{record.tokens_per_s:9,.0f} tokens/s"
            return f"step     {record.strategy:<40} {speed} {duration(record.seconds):>9}"
        case Missing():
            return f"not      {record.what}: {record.why}"


def best_products(bench: Bench) -> dict[str, Product]:
    """Precision -> the fastest square product."""
    found: dict[str, Product] = {}
    for product in bench.products:
        if product.name == "square" and product.tflops > _rate(found.get(product.precision)):
            found[product.precision] = product
    return found


def links(bench: Bench) -> list[Link]:
    """Each operation in each scope, in the order of measuring."""
    by_kind: dict[tuple[str, str], list[Transfer]] = {}
    for transfer in bench.transfers:
        by_kind.setdefault((transfer.scope, transfer.operation), []).append(transfer)
    return [_link(sizes) for sizes in by_kind.values()]


def step_share(bench: Bench, step: Step) -> float | None:
    """The share of the measured rate of products that a step reaches; None where that was not measured."""
    best = best_products(bench).get(step.precision)
    if best is None:
        return None
    return step.tokens_per_s * step.flops_per_token / (best.tflops * 1e12 * bench.machine.ranks)


def rate(value: float) -> str:
    """Three figures, no exponent above 1: `1,500`, `0.0931`."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(octets: float) -> str:
    """`32 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.3g} {unit}"
        octets /= 1024
    return f"{octets:.3g} GiB"


def duration(seconds: float) -> str:
    """`1.23 s`, `45 ms`, `12.3 us`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _say_new(folder: RunFolder, shown: set[Record], console: Console) -> None:
    if not folder.bench_json.exists():
        return
    for record in records(read_bench(folder)):
        if record not in shown:
            shown.add(record)
            console.print(Text(line(record)), soft_wrap=True)


def _rate(product: Product | None) -> float:
    return product.tflops if product else 0.0


def _link(sizes: Iterable[Transfer]) -> Link:
    by_size = sorted(sizes, key=lambda transfer: transfer.bytes)
    first = by_size[0]
    best = max(transfer.gb_per_s for transfer in by_size)
    return Link(first.operation, first.scope, first.ranks, first.seconds * 1e6, best)
