"""`plan --points FILE.csv`: what is predicted of each run in a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK
from aiftrain.plan.throughput.constants import shipped
from aiftrain.plan.throughput.predictions import RowPrediction, predict
from aiftrain.plan.throughput.table import read_rows

_HEADER = ("id", "tokens/s a GPU", "from", "to", "TFLOP/s", "GiB", "fits", "")
_FITS = {True: "yes", False: "no", None: "?"}


def show_points(file: str, *, as_json: bool) -> int:
    """Print one prediction a row. Raises UserError where the table cannot be read."""
    predictions = list(predict(read_rows(Path(file)), shipped()))
    if as_json:
        output.print_json([prediction.model_dump(mode="json") for prediction in predictions])
        return EXIT_OK
    console = output.console()
    output.show(output.table(_HEADER, map(_row, predictions), numbers=(1, 2, 3, 4, 5)), console)
    console.print(f"\n{_summary(predictions)}")
    return EXIT_OK


def _row(told: RowPrediction) -> tuple[str, ...]:
    rates = (told.tokens_per_s_per_gpu, told.low, told.high, told.tflops_per_gpu)
    remark = told.why or (f"assumed: {', '.join(told.assumed)}" if told.assumed else "")
    return (told.id, *map(_number, rates), _number(told.memory_gib), _FITS[told.fits], remark)


def _number(value: float | None) -> str:
    """Three figures at least; nothing for what is not known."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _summary(predictions: Iterable[RowPrediction]) -> str:
    told = [prediction.tokens_per_s_per_gpu is not None for prediction in predictions]
    return f"{sum(told):,} of {output.plural(len(told), 'row')} predicted; nine of ten rates are expected in the range"
