"""One rank that measures: `python -m aiftrain.train.bench RUN_FOLDER`, started as the ranks of a training run are."""

from __future__ import annotations

import sys

from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.train.process import StopRequest, leave, live


def main(arguments: list[str]) -> int:
    """Measure, and leave a note of how it went. Gives the exit code."""
    return live(arguments, "aiftrain.train.bench", _measure)


def _measure(folder: RunFolder, attempt: int, rank: Rank, stop: StopRequest) -> int:
    from aiftrain.train.bench.session import measure  # torch and DeepSpeed take seconds; signals are heard meanwhile

    return measure(folder, attempt, rank, stop)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
