"""`plan --calibrate FOLDER...`: learns from runs and benches how fast this site's machines are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.plan.throughput.calibrate import Benched, Observed, calibrate
from aiftrain.plan.throughput.constants import Figures
from aiftrain.plan.throughput.own import OwnCalibration, write
from aiftrain.report.metrics import TrainRecord, read_metrics
from aiftrain.run.bench import read_bench, read_cases
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.layout import Execution

_WARM_UP = 5  # steps of each attempt that do not count: caches fill, kernels are chosen
_ENOUGH = 5  # steps after them, at least


def calibrate_from(folders: Sequence[str], *, as_json: bool) -> int:
    """Fit, keep and show. Raises UserError where a folder holds no run that says how fast it was."""
    named = [RunFolder(folder) for folder in dict.fromkeys(folders)]
    benches = [benched(folder) for folder in named if folder.bench_json.exists()]
    runs = [observed(folder) for folder in named if not folder.bench_json.exists()]
    own = calibrate(runs, benches)
    site = named[0].read_spec().factory.name
    file = write(site, own)
    if as_json:
        output.print_json({"factory": site, "file": str(file), **own.model_dump(mode="json")})
        return EXIT_OK
    console = output.console()
    grounds = [f"{len(benches)} bench{'es' * (len(benches) > 1)}"] if benches else []
    grounds += [output.plural(len(runs), "run")] if runs else []
    output.headline(f"{site}, calibrated on {' and '.join(grounds)}", console)
    output.show(output.facts(_rows(own, file)), console)
    return EXIT_OK


def observed(folder: RunFolder) -> Observed:
    """What a run folder says of the run's speed. Raises UserError where it is none, or says nothing yet."""
    if not folder.path.is_dir():
        raise UserError(f"--calibrate {folder.path}: there is no such folder")
    spec = folder.read_spec()
    rates = _steady_rates(read_metrics(folder).train)
    if len(rates) < _ENOUGH:
        needed = f"at least {_ENOUGH} steps after the first {_WARM_UP} of an attempt"
        raise UserError(f"--calibrate {folder.path}: {folder.metrics.name} has {len(rates)} of {needed}")
    return Observed(
        name=str(folder.path.absolute()),
        spec=spec,
        execution=_execution(folder),
        tokens_per_s=median(rates),
        matmul_tflops=_matmul_tflops(folder),
    )


def benched(folder: RunFolder) -> Benched:
    """What a bench's folder says of its machine. Raises UserError where it cannot be read."""
    bench, spec, name = read_bench(folder), folder.read_spec(), str(folder.path.absolute())
    rates = {step.strategy: step.tokens_per_s for step in bench.steps}
    cases = [case for case in read_cases(folder).cases if case.strategy in rates]
    steps = [Observed(name, case.spec, case.execution, rates[case.strategy], None) for case in cases]
    return Benched(name, spec, bench, tuple(steps))


def _steady_rates(records: Iterable[TrainRecord]) -> list[float]:
    """Tokens a second of each step, without the first ones of each attempt."""
    by_attempt = (list(steps) for _, steps in groupby(records, key=lambda record: record.attempt))
    return [record.tokens_per_s for steps in by_attempt for record in steps[_WARM_UP:] if record.tokens_per_s > 0]


def _execution(folder: RunFolder) -> Execution:
    try:
        document = json.loads(folder.plan_json.read_text(encoding="utf-8"))
        return Execution.model_validate(document["execution"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{folder.plan_json} cannot be read as the plan of a run: {error}") from error


def _matmul_tflops(folder: RunFolder) -> float | None:
    """Of all ranks together, as they measured it at the start of each attempt: the median."""
    rates = [event.get("matmul_tflops") for event in read_lines(folder.events) if event.get("event") == "start"]
    known = [float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0]
    return median(known) if known else None


def _rows(own: OwnCalibration, file: Path) -> Iterable[tuple[str, str]]:
    for hardware, figures in own.figures.items():
        yield "bench", f"{hardware}, in the place of its profile: {', '.join(_measured_words(figures))}"
    for hardware, rates in own.matmul_tflops.items():
        each = ", ".join(f"{rate:,.3g} TFLOP/s at {precision}" for precision, rate in rates.items())
        yield "products", f"{hardware}: {each}, measured on one device"
    factors = ((own.hardware, "times the rate that was expected"), (own.stacks, "times the time of computation"))
    for factor, words in (*factors, (own.talks, "times the time of communication")):
        for name, value in factor.items():
            yield name, f"{value:.2f} {words}"
    yield "spread", f"a run is expected within {own.spread:.0%} (one standard deviation)"
    yield "kept in", str(file)


def _measured_words(figures: Figures) -> Iterable[str]:
    """Rates of one device."""
    for precision, rate in figures.matmul_tflops.items():
        yield f"{rate:,.3g} TFLOP/s at {precision}"
    links = (
        ("of memory", figures.memory_gb_per_s, None),
        ("inside a node", figures.intra_node_gb_per_s, figures.intra_node_us),
        ("across nodes", figures.inter_node_gb_per_s, figures.inter_node_us),
    )
    for where, bandwidth, hop in links:
        if bandwidth is not None:
            yield f"{bandwidth:,.3g} GB/s {where}" + (f" ({hop:,.3g} us a hop)" if hop is not None else "")
