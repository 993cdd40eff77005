"""What is printed fits a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from aiftrain.cli import output
from aiftrain.cli.progress import Bar, Stop


def test_names_are_whole_in_a_narrow_table() -> None:
    console, figures = Console(file=io.StringIO(), width=60), ["19.4 - 26.4"] * 6
    output.show(output.table(("site", *figures), [("marenostrum5", *figures)]), console)
    assert isinstance(console.file, io.StringIO) and "marenostrum5 " in console.file.getvalue()


def test_a_bar_is_one_line_however_long_its_address() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Bar(console, Stop()) as bar:
        bar.begin(f"step 100 at /{'archive/' * 12}", 40 << 20)
        bar.advance(12 << 20)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "12.0/40.0 MiB" in shown and "\x1b[1A" not in shown, "the cursor never went up a line"
