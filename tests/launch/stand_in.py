"""A rank without torch, for the tests of what starts and watches ranks: keeps to the run folder's rules.

`python -m tests.launch.stand_in ... RUN_FOLDER`; RUN_FOLDER/behaviour.json says what each rank does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.process import die_with_parent
from aiftrain.run.rank import read_rank

IDENTITY = read_rank(os.environ)
RANK = IDENTITY.rank
ATTEMPT = int(os.environ["AIFTRAIN_ATTEMPT"])


def main() -> None:
    die_with_parent(signal.SIGTERM)
    folder = RunFolder(sys.argv[-1])
    stem = folder.attempt_logs(ATTEMPT) / f"rank-{RANK:05d}"
    stop: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(sign, lambda number, _: stop.append(number))
    Path(f"{stem}.env").write_text("".join(f"{name}={value}\n" for name, value in os.environ.items()))
    note(stem, "start", pid=os.getpid())
    behaviour = json.loads((folder.path / "behaviour.json").read_text())[str(RANK)]
    match behaviour["does"]:
        case "steps":
            take_steps(folder, stem, behaviour, stop)
        case "fail":
            wait_for(stem.parent / behaviour.get("after", f"{stem.name}.start.json"))
            leave(stem, behaviour["code"], behaviour["message"])
        case "vanish":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            wait(stem, stop)


def take_steps(folder: RunFolder, stem: Path, behaviour: dict[str, float], stop: list[int]) -> None:
    for step in range(1, int(behaviour["steps"]) + 1):
        if RANK == 0:
            record = {"step": step, "attempt": ATTEMPT, "time": time.time(), "tokens": step * 128, "loss": 6.0 / step}
            append_line(folder.metrics, record | {"grad_norm": 1.0, "lr": 1e-3, "tokens_per_s": 1000.0})
        time.sleep(behaviour["seconds"])
        if stop or (stem.parent / "asked").exists():  # as the trainer's ranks agree
            (stem.parent / "asked").touch()
            time.sleep(behaviour.get("save", 0.0))
            (stem.parent / f"saved-{RANK}").touch()
            leave(stem, 75, "")
    leave(stem, 0, "")


def wait_for(file: Path) -> None:
    """Until another rank has left `file`: no machine is too busy for that order."""
    while not file.exists():
        time.sleep(0.01)


def wait(stem: Path, stop: list[int]) -> None:
    """Hang, whatever anyone asks."""
    while True:
        time.sleep(0.1)
        (stem.parent / f"asked-{RANK}-{len(stop)}").touch()


def note(stem: Path, kind: str, **fields: object) -> None:
    record = {"rank": RANK, "host": socket.gethostname(), "time": time.time()} | fields
    Path(f"{stem}.{kind}.json").write_text(json.dumps(record))


def leave(stem: Path, code: int, message: str) -> NoReturn:
    Path(f"{stem}.log").write_text(f"first line\nTraceback of rank {RANK}\n{message}\n")
    note(stem, "exit", exit_code=code, message=message)
    sys.exit(IDENTITY.exit_status(code))


main()
