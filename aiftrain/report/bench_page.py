"""bench.html: one page with its pictures in it, that says what a bench measured to someone who was not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from aiftrain.report.bench import best_products, duration, links, rate, size, step_share
from aiftrain.report.bench_pictures import links_picture, products_picture, steps_picture
from aiftrain.run.bench import Bench, Transfer
from aiftrain.run.folder import RunFolder
from aiftrain.run.machine import Hardware
from aiftrain.run.process import has_package

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin-top: 2.5rem }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0 }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #e4e4e4 }
td.number, th.number { text-align: right } svg { max-width: 100%; height: auto }
.quiet { color: #666 } details { margin: 1rem 0 } summary { cursor: pointer }
"""
_PRODUCTS = """Training is mostly products of matrices. Small ones are slower: a device needs enough to do at one time.
Crosses are the products of the model itself, at the place of a square product of as many operations."""
_MEMORY = (
    "What is not a product is mostly reading and writing memory. Copying reads and writes; triad reads two arrays."
)
_LINKS = """Ranks exchange gradients and weights. Small messages cost the latency of the links, large ones their
bandwidth. Rates are what the link of one rank carries in one direction, whatever the number of ranks: the bus
bandwidth of nccl-tests, to be held against a data sheet."""
_STEPS = """One optimizer step of the engine that trains, with each strategy that this many ranks can do: forward and
backward pass, communication, optimizer. The model is cut to a few layers, so figures are for comparison with each
other, not a forecast of a run. The share is of the measured rate of square products at the same precision."""
_HOW = """Each figure is a median over repetitions after calls that are not counted (the first makes connections and
chooses kernels). All ranks measure at the same time, as they would train. The number of repetitions follows from
the time that was given."""


@dataclass(frozen=True)
class Promise:
    """A figure of the hardware profile, and what was measured of it. Both of one device."""

    name: str
    measured: float
    promised: float
    unit: str


def draw(folder: RunFolder, bench: Bench) -> Path:
    """Write the page and give its path; without matplotlib it has tables only. Raises MachineError."""
    hardware = folder.read_spec().hardware
    body = "\n".join(_body(bench, hardware, with_pictures=has_package("matplotlib")))
    title = escape(f"{bench.machine.device}, {_plural(bench.machine.ranks, 'rank')}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    folder.write(
        folder.bench_html, f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    )
    return folder.bench_html


def promises(bench: Bench, hardware: Hardware) -> list[Promise]:
    """What the profile states and was measured too. Ranks that share a device count together."""
    sharing = max(1.0, bench.machine.ranks_per_node / hardware.devices_per_node)
    best = best_products(bench)
    rates: list[tuple[str, float | None, float | None, str]] = [
        (
            "bf16 products",
            sharing * best["bf16"].tflops if "bf16" in best else None,
            hardware.matmul_bf16_tflops,
            "TFLOP/s",
        ),
        ("memory", _most(sharing * each.gb_per_s for each in bench.streams), hardware.memory_gb_per_s, "GB/s"),
        ("links inside a node", _fastest(bench, "inside a node"), hardware.intra_node_gb_per_s, "GB/s"),
        ("network", _fastest(bench, "across nodes"), hardware.inter_node_gb_per_s, "GB/s"),
    ]
    return [
        Promise(name, one, other, unit) for name, one, other, unit in rates if one is not None and other is not None
    ]


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _body(bench: Bench, hardware: Hardware, *, with_pictures: bool) -> Iterator[str]:
    machine = bench.machine
    yield f"<h1>{escape(machine.device)}</h1>"
    where = f"{_plural(machine.ranks, 'rank')} on {_plural(machine.nodes, 'node')}"
    words = f"{where}, {machine.backend}, measured {bench.date}"
    yield f'<p class="quiet">{escape(words)}{"" if bench.complete else "; stopped before the end"}</p>'
    yield from _against_profile(bench, hardware)
    yield from _products(bench, hardware, with_pictures)
    yield from _memory(bench)
    yield from _links(bench, hardware, with_pictures)
    yield from _steps(bench, with_pictures)
    yield from _missing(bench)
    yield from _how(bench)


def _against_profile(bench: Bench, hardware: Hardware) -> Iterator[str]:
    yield "<h2>Against the hardware's profile</h2>"
    found = promises(bench, hardware)
    if not found:
        yield f"<p>The profile <b>{escape(hardware.name)}</b> states no rates to compare with: this page has them.</p>"
        return
    rows = [
        (each.name, f"{rate(each.measured)} {each.unit}", f"{rate(each.promised)} {each.unit}", _share(each))
        for each in found
    ]
    yield table(("", "measured", f"profile {hardware.name}", "share"), rows, numbers=(1, 2, 3))


def _products(bench: Bench, hardware: Hardware, with_pictures: bool) -> Iterator[str]:
    if not bench.products:
        return
    yield f"<h2>Products of matrices</h2><p>{_PRODUCTS}</p>"
    if with_pictures:
        yield products_picture(bench, hardware.matmul_bf16_tflops)
    rows = [
        (
            each.precision,
            f"{each.m} x {each.n} x {each.k}",
            each.name,
            rate(each.tflops),
            rate(each.tflops_slowest),
        )
        for each in bench.products
    ]
    header = ("precision", "m x n x k", "", "TFLOP/s, median rank", "slowest rank")
    yield _folded("All products", table(header, rows, numbers=(3, 4)))


def _memory(bench: Bench) -> Iterator[str]:
    if not bench.streams:
        return
    rows = [
        (each.operation, size(each.bytes), rate(each.gb_per_s), rate(each.gb_per_s_slowest)) for each in bench.streams
    ]
    yield f"<h2>Memory</h2><p>{_MEMORY}</p>"
    yield table(("", "read and written", "GB/s, median rank", "slowest rank"), rows, numbers=(1, 2, 3))


def _links(bench: Bench, hardware: Hardware, with_pictures: bool) -> Iterator[str]:
    if not bench.transfers:
        return
    yield f"<h2>Between ranks</h2><p>{_LINKS}</p>"
    rows = [
        (each.operation, each.scope, f"{each.ranks:,}", duration(each.latency_us * 1e-6), rate(each.gb_per_s))
        for each in links(bench)
    ]
    yield table(("", "where", "ranks", "smallest message", "best GB/s"), rows, numbers=(2, 3, 4))
    promised = {"inside a node": hardware.intra_node_gb_per_s, "across nodes": hardware.inter_node_gb_per_s}
    for scope in dict.fromkeys(each.scope for each in bench.transfers):
        of_scope = [each for each in bench.transfers if each.scope == scope]
        yield f"<h3>{escape(scope)}</h3>"
        if with_pictures:
            yield links_picture(of_scope, promised.get(scope))
        yield _folded("All messages", _messages(of_scope))


def _messages(transfers: Sequence[Transfer]) -> str:
    rows = [
        (each.operation, size(each.bytes), duration(each.seconds), rate(each.gb_per_s), str(each.repetitions))
        for each in transfers
    ]
    return table(("", "message", "time", "GB/s", "calls"), rows, numbers=(1, 2, 3, 4))


def _steps(bench: Bench, with_pictures: bool) -> Iterator[str]:
    if not bench.steps:
        return
    first = bench.steps[0]
    model = f"{first.layers} layers of {bench.recipe}, {first.parameters:,} parameters, {first.tokens:,} tokens a step"
    yield f"<h2>Training steps</h2><p>{_STEPS}</p><p>{escape(model)}, {first.precision}.</p>"
    if with_pictures:
        yield steps_picture(bench)
    rows = []
    for step in bench.steps:
        share, peak = step_share(bench, step), step.peak_memory_gib
        words = (f"{share:.0%}" if share else "", f"{peak:,.1f} GiB" if peak is not None else "")
        rows.append((step.strategy, duration(step.seconds), f"{step.tokens_per_s:,.0f}", *words))
    header = ("strategy", "a step", "tokens/s", "of the product rate", "peak memory of a device")
    yield table(header, rows, numbers=(1, 2, 3, 4))


def _missing(bench: Bench) -> Iterator[str]:
    if bench.missing:
        yield "<h2>Not measured</h2>"
        yield table(("what", "why"), [(each.what, each.why) for each in bench.missing])


def _how(bench: Bench) -> Iterator[str]:
    yield f"<h2>How it was measured</h2><p>{_HOW}</p>"
    machine = bench.machine
    facts = {
        "factory, hardware profile": f"{machine.factory}, {machine.hardware}",
        "ranks on a node": f"{machine.ranks_per_node:,}, each with {machine.threads:,} threads",
        "time taken": f"{bench.seconds_taken:,.0f} s",
        **{name: version for name, version in bench.versions.items()},
    }
    yield table(("", ""), list(facts.items()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """An HTML table of text; columns in `numbers` are set right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="number"' if place in numbers else "" for place in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    lines = [f"<tr>{cells('td', row)}</tr>" for row in rows]
    return "\n".join([f"<table><tr>{cells('th', header)}</tr>", *lines, "</table>"])


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _share(promise: Promise) -> str:
    return f"{promise.measured / promise.promised:.0%}"


def _fastest(bench: Bench, scope: str) -> float | None:
    return _most(each.gb_per_s for each in bench.transfers if each.scope == scope)


def _most(values: Iterable[float]) -> float | None:
    return max(values, default=None)
