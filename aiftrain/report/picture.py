"""Pictures: where one may be written, and the plain axes that all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.errors import MachineError, UserError
from aiftrain.run.process import has_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
FRAME, GRID = "#bbbbbb", "#eeeeee"


def check(file: Path) -> None:
    """Raises UserError where `file` is no picture that can be made here, before anything is worked out for it."""
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"--picture {file}: a picture ends in {' or '.join(SUFFIXES)}")
    if not file.parent.is_dir():
        raise UserError(f"--picture {file}: there is no folder {file.parent}")
    if not has_package("matplotlib"):
        raise UserError("--picture needs matplotlib (python -m pip install matplotlib)")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> None:
    """A light grid, and no frame but the two axes."""
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=FRAME)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)


def save(figure: Figure, file: Path) -> None:
    """Write the picture, whole or not at all. Raises MachineError."""
    from matplotlib import rc_context

    kind = file.suffix.lower().removeprefix(".")
    part = file.with_name(f"{file.name}.part")
    dateless = {"Date": None} if kind == "svg" else None  # with the salt: the same picture is the same file
    try:
        with rc_context({"svg.hashsalt": "aiftrain"}):
            figure.savefig(part, format=kind, dpi=150, metadata=dateless)
        part.replace(file)
    except OSError as error:
        raise MachineError(f"cannot write {file}: {error.strerror}") from error
