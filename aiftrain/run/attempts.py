"""The starts of a run: how far each came, and a refusal to start once more where the last ones led nowhere."""

from __future__ import annotations

import json

from aiftrain.errors import EXIT_OK, EXIT_RESUME, MachineError
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.spec import LauncherSpec

_RESTARTED = ("slurm", "pbs")  # launchers whose scheduler starts a job again; elsewhere a person does, and sees


def refuse_loop(folder: RunFolder, launcher: LauncherSpec, attempt: int) -> None:
    """MachineError where the newest `launcher.max_restarts` starts before `attempt` ended without a new step.

    Only starts since the newest submission count: who submits a job again has seen to what was wrong.
    """
    most = launcher.max_restarts
    if launcher.name not in _RESTARTED or most == 0:
        return
    before = _since_submission(folder, attempt)
    if len(before) < most or _progressed(folder, before[-most:]):
        return
    raise MachineError(
        f"not started: the last {most} starts of {folder.path} ended without a new step"
        f"{_last_error(folder, before[-1])}. Mend the cause and submit the run again, which starts the count anew; "
        "launcher.max_restarts is how many there may be (0: any number)"
    )


def _since_submission(folder: RunFolder, attempt: int) -> list[int]:
    """The starts before `attempt` that came after the newest submission, the newest last."""
    submitted = max((float(record.get("submitted", 0)) for record in read_lines(folder.jobs)), default=0.0)
    numbers = (number for number in range(1, attempt) if folder.attempt_logs(number).is_dir())
    return [number for number in numbers if _started(folder, number) > submitted]


def _started(folder: RunFolder, attempt: int) -> float:
    """Unix seconds, as rank 0 noted them; where it did not come so far, when its logs were last touched."""
    logs = folder.attempt_logs(attempt)
    try:
        return float(json.loads((logs / "rank-00000.start.json").read_text(encoding="utf-8"))["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return logs.stat().st_mtime


def _progressed(folder: RunFolder, attempts: list[int]) -> bool:
    """Whether one of `attempts` came further than all before them."""
    reached = {"before": 0, "since": 0}
    saved = (event for event in read_lines(folder.events) if event.get("event") == "saved")
    for source in (read_lines(folder.metrics), saved):
        for record in source:
            when = "before" if record.get("attempt", 0) < attempts[0] else "since"
            reached[when] = max(reached[when], record.get("step", 0))
    return reached["since"] > reached["before"]


def _last_error(folder: RunFolder, attempt: int) -> str:
    """What the rank that failed first said, for a message; nothing where none said a word."""
    failures = []
    for file in folder.attempt_logs(attempt).glob("rank-*.exit.json"):
        try:
            note = json.loads(file.read_text(encoding="utf-8"))
            if note["exit_code"] not in (EXIT_OK, EXIT_RESUME):
                failures.append((float(note["time"]), int(note["rank"]), str(note["message"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not failures:
        return ""
    _, rank, message = min(failures)
    return f"; the last error was, of rank {rank}: {message.rstrip('.')}"
