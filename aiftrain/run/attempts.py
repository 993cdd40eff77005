"""The starts of a run: how far each came, and whether enough of them led nowhere."""

from __future__ import annotations

import json
from itertools import chain, pairwise

from aiftrain.errors import EXIT_OK, EXIT_RESUME, MachineError
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.spec import LauncherSpec


def refuse_loop(folder: RunFolder, launcher: LauncherSpec, attempt: int) -> None:
    """MachineError where the newest `launcher.max_restarts` starts before `attempt` ended without a new step."""
    reason = led_nowhere(folder, launcher, attempt - 1)
    if reason:
        raise MachineError(f"not started: {reason}")


def led_nowhere(folder: RunFolder, launcher: LauncherSpec, last: int) -> str:
    """Why a run is not to be started once more: its `launcher.max_restarts` starts up to `last` made no new step.

    Nothing where it may. Only starts since a person submitted it count: who did so has seen to what was wrong.
    """
    most = launcher.max_restarts
    if not launcher.is_queued or most == 0:  # elsewhere a person starts it again, and sees
        return ""
    starts = starts_since_submission(folder, last)
    if len(starts) < most or progressed(folder, starts[-most]):
        return ""
    return (
        f"the last {most} starts of {folder.path} ended without a new step{_last_error(folder, last)}. "
        "Mend the cause and submit the run again, which starts the count anew; "
        "launcher.max_restarts is how many there may be (0: any number)"
    )


def progressed(folder: RunFolder, since: int) -> bool:
    """Whether a start from number `since` on came further than all before it, or resumed further on than the last.

    The latter is progress below the furthest step: after a rollback, or where the newest checkpoint was damaged.
    """
    events = list(read_lines(folder.events))
    saved = (event for event in events if event.get("event") == "saved")
    reached = {"before": 0, "since": 0}
    for record in chain(read_lines(folder.metrics), saved):
        when = "before" if record.get("attempt", 0) < since else "since"
        reached[when] = max(reached[when], record.get("step", 0))
    resumed = (e["step"] for e in events if e.get("event") == "resume" and e.get("attempt", 0) >= since)
    return reached["since"] > reached["before"] or any(before < after for before, after in pairwise(resumed))


def starts_since_submission(folder: RunFolder, last: int) -> list[int]:
    """The starts up to `last` that came after the newest submission of a person's, the newest last."""
    by_hand = (record for record in read_lines(folder.jobs) if "follows" not in record)
    submitted = max((float(record.get("submitted", 0)) for record in by_hand), default=0.0)
    numbers = (number for number in range(1, last + 1) if folder.attempt_logs(number).is_dir())
    return [number for number in numbers if _started(folder, number) > submitted]


def _started(folder: RunFolder, attempt: int) -> float:
    """Unix seconds, as rank 0 noted them; where it did not come so far, when its logs were last touched."""
    logs = folder.attempt_logs(attempt)
    try:
        return float(json.loads((logs / "rank-00000.start.json").read_text(encoding="utf-8"))["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return logs.stat().st_mtime


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
