"""One rank of a run: `python -m aiftrain.train RUN_FOLDER`, started by a launcher on every device.

It meets the other ranks, hears from rank 0 what the run is, resumes from the newest checkpoint, and trains.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

from aiftrain.errors import EXIT_FAILED, AiftrainError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.process import die_with_parent
from aiftrain.run.rank import Rank, read_rank
from aiftrain.train.process import RankProcess, StopRequest


def main(arguments: list[str]) -> int:
    """Run this rank to its end and leave a note of how it went. Gives the exit code."""
    stop = StopRequest()
    stop.listen()
    die_with_parent(signal.SIGTERM)  # a rank without a launcher saves and leaves
    if len(arguments) != 1:
        print("usage: python -m aiftrain.train RUN_FOLDER", file=sys.stderr)
        return UserError.exit_code
    folder, attempt = RunFolder(arguments[0]), int(os.environ.get("AIFTRAIN_ATTEMPT", "1"))
    process: RankProcess | None = None
    try:
        rank = read_rank(os.environ)
        process = RankProcess(folder, attempt, rank)
        process.begin()
        code, message = _train(folder, attempt, rank, stop), ""
    except AiftrainError as error:
        code, message = error.exit_code, str(error)
    except Exception as error:
        traceback.print_exc()
        code, message = EXIT_FAILED, f"{type(error).__name__}: {error}"
    if message:
        print(message, file=sys.stderr)
    return code if process is None else process.end(code, message)


def _train(folder: RunFolder, attempt: int, rank: Rank, stop: StopRequest) -> int:
    from aiftrain.train.start import start  # torch and DeepSpeed take seconds; signals are heard meanwhile

    trainer, state = start(folder, attempt, rank, stop)
    code = trainer.run(state)
    trainer.close()
    return code


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Where one rank failed, others may hang in native threads of the process group: leave without waiting.
    os._exit(status)
