"""One rank of a run: `python -m aiftrain.train RUN_FOLDER`, started by a launcher on every device.

It meets the other ranks, hears from rank 0 what the run is, resumes from the newest checkpoint, and trains.
"""

from __future__ import annotations

import sys

from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.train.process import StopRequest, leave, live


def main(arguments: list[str]) -> int:
    """Run this rank to its end and leave a note of how it went. Gives the exit code."""
    return live(arguments, "aiftrain.train", _train)


def _train(folder: RunFolder, attempt: int, rank: Rank, stop: StopRequest) -> int:
    from aiftrain.train.start import start  # torch and DeepSpeed take seconds; signals are heard meanwhile

    trainer, state = start(folder, attempt, rank, stop)
    code = trainer.run(state)
    trainer.close()
    return code


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
