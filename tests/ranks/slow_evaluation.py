"""A rank whose evaluation takes a while for each source: SECONDS of the environment."""

from __future__ import annotations

import os
import time
from typing import Any

from aiftrain.train import __main__ as trainer
from aiftrain.train.engine import Engine


def main(arguments: list[str]) -> int:
    evaluate = Engine.evaluate

    def slowly(engine: Engine, *batches: Any) -> tuple[float, int]:
        time.sleep(float(os.environ["SECONDS"]))
        return evaluate(engine, *batches)

    Engine.evaluate = slowly  # type: ignore[assignment,method-assign]
    return trainer.main(arguments)
