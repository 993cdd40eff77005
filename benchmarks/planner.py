"""How well the planner's rates agree with published runs, and where its constants come from.

python benchmarks/planner.py            # every figure of docs/planner.md; about eight minutes
python benchmarks/planner.py --fit      # fits the constants anew and writes them into conf/throughput.yaml
python benchmarks/planner.py FILE.csv   # the shipped constants against a table of your own
python benchmarks/planner.py --picture docs/planner.png   # predicted against measured; needs matplotlib

The table is benchmarks/data/throughput.csv: one published run a row, with its source. Three questions are asked. How
far off are the shipped constants? Fitted on half of the layouts, how far off are they on the other half? Fitted
without any run of a machine, how far off are they on that machine? And of each published sweep of layouts: how much
slower than the best is the layout that the planner would have taken?
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiftrain.plan.throughput.constants import Constants, shipped
from aiftrain.plan.throughput.fit import FACTORS, PHYSICAL, Measured, error, fit, spread
from aiftrain.plan.throughput.points import point_of
from aiftrain.plan.throughput.predictions import cut_down, placed
from aiftrain.plan.throughput.step import Setting, step_time
from aiftrain.plan.throughput.table import CannotSay, read_rows
from aiftrain.shipped import conf_dir

TABLE = Path(__file__).parent / "data" / "throughput.csv"
LAYOUT = (
    "model",
    "hardware",
    "gpus",
    "tp",
    "pp",
    "cp_sp",
    "micro_batch",
    "global_batch",
    "seq",
    "zero",
    "ep",
    "recompute",
)
SWEEP = ("source", "software", "model", "hardware", "gpus", "seq", "precision")
CHOICE = ("tp", "pp", "vpp", "cp_sp", "ep", "micro_batch", "zero", "recompute", "notes")


@dataclass(frozen=True)
class Run:
    row: dict[str, str]
    measured: Measured

    @property
    def machine(self) -> str:
        return self.measured.setting.hardware.name

    @property
    def software(self) -> str:
        return self.measured.setting.stack.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, default=TABLE)
    parser.add_argument("--fit", action="store_true", help="fit anew and write conf/throughput.yaml")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw predicted against measured")
    options = parser.parse_args()
    runs = load(options.table)
    if options.picture:
        draw(runs, shipped().constants, options.picture)
        return
    if options.fit:
        write(fitted(runs), runs)
        return
    report("shipped constants", runs, shipped().constants, by=lambda run: f"{run.software} on {run.machine}")
    sweeps(runs, shipped().constants)
    if options.table == TABLE:
        halves(runs)
        machines(runs)


def load(table: Path) -> list[Run]:
    """The rows that state a rate and can be predicted. Rows of one model, source and machine share their weight."""
    found, unsaid = [], Counter[str]()
    for row in read_rows(table):
        try:
            found.append((row, _setting(row), float(row["tokens_per_s_per_gpu"])))
        except CannotSay as reason:
            unsaid[str(reason)] += 1
    alike = Counter(_family(row) for row, _, _ in found)
    for why, count in unsaid.most_common():
        print(f"{count:5} rows cannot be predicted: {why}")
    return [Run(row, Measured(setting, rate, alike[_family(row)] ** -0.8)) for row, setting, rate in found]


def _setting(row: dict[str, str]) -> Setting:
    """What `plan --points` makes of a row. Raises CannotSay."""
    point = placed(point_of(row, shipped())).point
    part = cut_down(point)
    if part:
        raise CannotSay(part)
    return point.setting


def _family(row: dict[str, str]) -> tuple[str, ...]:
    return (row["source"].split("@")[0].split(":")[0], row["hardware"], row["model"])


def fitted(runs: Iterable[Run]) -> Constants:
    return fit([run.measured for run in runs], Constants(), PHYSICAL, FACTORS)


def report(title: str, runs: Sequence[Run], constants: Constants, by: Callable[[Run], str]) -> None:
    """Median and 90th percentile of the error of tokens/s, in all and by group."""
    groups = defaultdict(list)
    for run in runs:
        groups[by(run)].append(_off(run, constants))
    everything = [off for offs in groups.values() for off in offs]
    print(f"\n{title}: {_summary(everything)}")
    for name, offs in sorted(groups.items()):
        print(f"  {name:32} {_summary(offs)}, bias {statistics.median(offs):+.1%}")


def _off(run: Run, constants: Constants) -> float:
    """(predicted - measured) / measured."""
    return math.exp(-error(run.measured, constants)) - 1


def _summary(offs: Sequence[float]) -> str:
    sizes = sorted(map(abs, offs))
    tenth = sizes[min(len(sizes) - 1, round(0.9 * (len(sizes) - 1)))]
    return f"{len(sizes):5} runs, median error {statistics.median(sizes):.1%}, 90th percentile {tenth:.1%}"


def halves(runs: Sequence[Run]) -> None:
    """Fit on half of the layouts, chosen by their digest, and report on the other half."""
    for half in (0, 1):
        known = [run for run in runs if _half(run) == half]
        unseen = [run for run in runs if _half(run) != half]
        report(f"unseen layouts (half {half + 1})", unseen, fitted(known), by=lambda run: run.machine)


def _half(run: Run) -> int:
    return hashlib.sha256("|".join(run.row[key] for key in LAYOUT).encode()).digest()[0] % 2


def machines(runs: Sequence[Run]) -> None:
    """Fit without a machine and report on it."""
    offs = []
    print("\nunseen machines:")
    for machine in sorted({run.machine for run in runs}):
        constants = fitted([run for run in runs if run.machine != machine])
        here = [_off(run, constants) for run in runs if run.machine == machine]
        print(f"  {machine:32} {_summary(here)}, bias {statistics.median(here):+.1%}")
        offs += here
    print(f"  {'all':32} {_summary(offs)}")


def sweeps(runs: Sequence[Run], constants: Constants) -> None:
    """What it costs to take the layout that is predicted to be the fastest of a published sweep."""
    groups = defaultdict(list)
    for run in runs:
        groups[tuple(run.row[key] for key in SWEEP)].append(run)
    print("\nchoosing the layout of a published sweep:")
    regrets = []
    for group in groups.values():
        choices = {tuple(run.row[key] for key in CHOICE) for run in group}
        if len(choices) < 3:
            continue
        rates = [run.measured.tokens_per_s_per_device for run in group]
        chosen = max(
            range(len(group)), key=lambda place: rates[place] * math.exp(-error(group[place].measured, constants))
        )
        regrets.append(1 - rates[chosen] / max(rates))
        row = group[0].row
        what = f"{row['model']:20} on {row['gpus']:>4} GPUs, {row['seq']:>5} tokens"
        print(f"  {what}: {len(choices):3} layouts, loses {regrets[-1]:.1%}")
    print(f"  {len(regrets)} sweeps: median {statistics.median(regrets):.1%}, mean {statistics.mean(regrets):.1%}")


def draw(runs: Sequence[Run], constants: Constants, file: Path) -> None:
    """Predicted against measured tokens/s of one device, by machine, with bands of 10 and 25 %."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 7), layout="constrained")
    rates = [run.measured.tokens_per_s_per_device for run in runs]
    line = [0.8 * min(rates), 1.25 * max(rates)]
    for band, shade in ((0.25, "0.93"), (0.10, "0.85")):
        axes.fill_between(line, [x * (1 - band) for x in line], [x * (1 + band) for x in line], color=shade, lw=0)
    axes.plot(line, line, color="0.5", lw=0.8)
    for place, machine in enumerate(sorted({run.machine for run in runs})):
        here = [run.measured for run in runs if run.machine == machine]
        predicted = [step_time(replace(one.setting, constants=constants)).tokens_per_s_per_device for one in here]
        measured = [one.tokens_per_s_per_device for one in here]
        style: dict[str, Any] = {
            "marker": "osD^vPX"[place % 7],
            "color": f"C{place % 10}",
            "s": 14,
            "alpha": 0.7,
            "lw": 0,
        }
        axes.scatter(measured, predicted, label=f"{machine} ({len(here)})", **style)
    axes.set(xscale="log", yscale="log", xlim=line, ylim=line, aspect="equal")
    axes.set(xlabel="measured tokens/s of one device", ylabel="predicted")
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", title="machine (runs); bands: 10 % and 25 %", title_fontsize=8
    )
    figure.savefig(file, dpi=150)


def write(constants: Constants, runs: Sequence[Run]) -> None:
    """Put the constants, to three digits, into conf/throughput.yaml; the software stays as it is written there."""
    constants = constants.model_copy(update={"spread": spread([run.measured for run in runs], constants)})
    lines = ["constants:"]
    for name, value in constants:
        if isinstance(value, dict):
            members = ", ".join(f"{key}: {number:.3g}" for key, number in sorted(value.items()))
            lines.append(f"  {name}: {{{members}}}")
        else:
            lines.append(f"  {name}: {value:.3g}")
    file = conf_dir() / "throughput.yaml"
    text = re.sub(r"^constants:.*?(?=^\S)", "\n".join(lines) + "\n", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    file.write_text(text, encoding="utf-8")
    report("fitted constants", runs, constants, by=lambda run: run.machine)


if __name__ == "__main__":
    main()
