"""The figures of a bench as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from aiftrain.cli import output
from aiftrain.report.bench import best_products, duration, links, rate, step_share
from aiftrain.run.bench import Bench


def tables(bench: Bench) -> Iterator[tuple[str, Table]]:
    """Title and table of each part of which there is a figure."""
    machine = bench.machine
    ranks = f"{output.plural(machine.ranks, 'rank')} on {output.plural(machine.nodes, 'node')}"
    yield f"{machine.device}: {ranks}, {output.plural(machine.threads, 'thread')} each", output.facts(_rates(bench))
    if bench.transfers:
        columns = ("links", "where", "ranks", "smallest message", "best rate")
        yield "Between ranks", output.table(columns, _links(bench), numbers=(2, 3, 4))
    if bench.steps:
        header = ("strategy", "a step", "tokens/s", "of the product rate")
        step = bench.steps[0]
        title = f"Training: {step.layers} layers of {bench.recipe}, {output.count(step.parameters)} parameters"
        yield title, output.table(header, _steps(bench), numbers=(1, 2, 3))
    if bench.missing:
        yield "Not measured", output.facts((missing.what, missing.why) for missing in bench.missing)


def _rates(bench: Bench) -> Iterator[tuple[str, str]]:
    for precision, product in best_products(bench).items():
        slowest = f"; the slowest rank {rate(product.tflops_slowest)}" if bench.machine.ranks > 1 else ""
        yield f"{precision} products", f"{rate(product.tflops)} TFLOP/s a rank, {product.m} square{slowest}"
    for stream in bench.streams:
        yield f"memory {stream.operation}", f"{rate(stream.gb_per_s)} GB/s a rank"
    how = "all" if bench.complete else "stopped before the end, after"
    yield "measured", f"{bench.date}, {how} in {bench.seconds_taken:,.0f} s"


def _links(bench: Bench) -> Iterator[tuple[str, ...]]:
    for link in links(bench):
        where = (link.operation, link.scope, f"{link.ranks:,}")
        yield *where, duration(link.latency_us * 1e-6), f"{rate(link.gb_per_s)} GB/s"


def _steps(bench: Bench) -> Iterator[tuple[str, ...]]:
    for step in bench.steps:
        share = step_share(bench, step)
        yield step.strategy, duration(step.seconds), f"{step.tokens_per_s:,.0f}", f"{share:.0%}" if share else ""
