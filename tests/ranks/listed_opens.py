"""A rank that writes down each file and folder of its run that Python opens, in the order in which it does so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aiftrain.run.rank import read_rank
from aiftrain.train import __main__ as trainer


def main(arguments: list[str]) -> int:
    """Leave opens-ATTEMPT-RANK beside the run folder. An audit hook sees all that Python opens, and stays."""
    run, rank = Path(arguments[0]), read_rank(os.environ).rank
    opened: list[str] = []

    def hook(event: str, details: tuple[object, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(details[0], str | os.PathLike):
            path = Path(details[0])
            if path.is_relative_to(run):
                opened.append(str(path.relative_to(run)))

    sys.addaudithook(hook)
    code = trainer.main(arguments)
    (run.parent / f"opens-{os.environ['AIFTRAIN_ATTEMPT']}-{rank}").write_text("\n".join(opened), encoding="utf-8")
    return code
