"""Trains right here: starts the ranks of a run folder on this machine, shows them, and tells how it ended."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aiftrain.checkpoint.ledger import unshipped_by
from aiftrain.errors import EXIT_OK, EXIT_RESUME, EXIT_USER, AiftrainError, MachineError, UserError
from aiftrain.launch.environment import local_environment
from aiftrain.launch.outcome import Outcome, judge, last_lines, memory_kills
from aiftrain.launch.ranks import MODULES, LocalRanks, StopRequests
from aiftrain.launch.scripted import ScriptedRanks, check_start
from aiftrain.report.curve import draw
from aiftrain.report.live import follow
from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import Execution
from aiftrain.run.lock import RunLock
from aiftrain.run.process import has_package, usable_cores

_NEEDED = ("torch", "deepspeed")
_HANG_SECONDS = 10.0  # what ranks are given to end by themselves when one of them is lost
_PAUSE = 0.1  # seconds


Follow = Callable[[int, Callable[[], bool]], None]  # shows an attempt for as long as it runs


def run_local(
    folder: RunFolder, execution: Execution, console: Console, *, again: str = "", module: str | None = None
) -> int:
    """Train the run in `folder` until it ends or is stopped; the exit code (0, 1, 2 or 75).

    `again` is the command that goes on with this run, for the messages; the rest is as of `run_ranks`.
    """
    outcome = run_ranks(
        folder, execution, console, lambda attempt, running: follow(folder, attempt, running, console), module=module
    )
    _tell(outcome, folder, console, again or "the same command again")
    return outcome.exit_code


def run_ranks(
    folder: RunFolder, execution: Execution, console: Console, show: Follow, *, module: str | None = None
) -> Outcome:
    """Start the ranks of the run in `folder`, have them shown, and wait for their end.

    launcher=local starts torchrun; launchers that start ranks here by a script have job.sh run. `module` is what each
    rank runs, if it is not what the run is for.

    SIGINT, SIGTERM and SIGHUP ask the ranks to save and leave; a second one kills them. Raises UserError
    where nothing can be started: torch is missing, several nodes were asked for, or the run goes on elsewhere.
    """
    _require_training()
    spec = folder.read_spec()
    check_start(spec, execution.layout)
    RunLock(folder.lock).check()
    attempt, logs = _new_attempt(folder)
    kind = LocalRanks if spec.launcher.name == "local" else ScriptedRanks
    ranks = kind(folder.path.resolve(), logs, execution.layout.world_size, module or MODULES[spec.purpose])
    kills_before = memory_kills()
    with StopRequests() as requests:
        ranks.start(local_environment(spec, execution.layout, attempt, usable_cores(), os.environ))
        watch = _Watch(ranks, requests, console)
        try:
            show(attempt, watch.running)
        finally:
            watch.finish()
    return judge(
        logs,
        execution.layout.world_size,
        stop_asked=requests.count > 0,
        killed_by_memory=memory_kills() > kills_before,
    )


class _Watch:
    """Looks after the ranks each time someone asks whether they run: passes requests to stop on, ends a hang."""

    def __init__(self, ranks: LocalRanks, requests: StopRequests, console: Console) -> None:
        self._ranks, self._requests, self._console = ranks, requests, console
        self._handled = 0
        self._broken_since: float | None = None

    def running(self) -> bool:
        if self._requests.count > self._handled:
            self._handled += 1
            self._stop() if self._handled == 1 else self._ranks.kill()
        self._end_hang()
        return self._ranks.running()

    def finish(self) -> None:
        """Wait for the ranks. Where nobody watches any more, because the screen broke, they save and leave."""
        if self._ranks.running():
            self._ranks.stop()
        while self._ranks.running():
            self._end_hang()
            time.sleep(_PAUSE)

    def _stop(self) -> None:
        self._ranks.stop()
        self._console.print("stopping: the ranks save and leave (once more: kill them at once)")

    def _end_hang(self) -> None:
        """Where a rank is lost, the others fail within a moment or wait for it: then they are ended."""
        if not self._ranks.broken():
            self._broken_since = None
        elif self._broken_since is None:
            self._broken_since = time.monotonic()
        elif time.monotonic() - self._broken_since > _HANG_SECONDS:
            self._ranks.kill_waiting()


def _require_training() -> None:
    missing = [name for name in _NEEDED if not has_package(name)]
    if missing:
        raise UserError(
            f"training needs {' and '.join(missing)}, which this Python lacks. "
            "Install the extra `train`: python -m pip install -c constraints.txt 'aiftrain[train]'"
        )


def _new_attempt(folder: RunFolder) -> tuple[int, Path]:
    attempt = folder.last_attempt() + 1
    logs = folder.attempt_logs(attempt)
    try:
        logs.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder.path} is being started by someone else at this moment") from None
    except OSError as error:
        raise MachineError(f"cannot make {logs}: {error.strerror}") from error
    return attempt, logs


def _tell(outcome: Outcome, folder: RunFolder, console: Console, again: str) -> None:
    """The last words: what happened, where to look, what to do next."""
    if outcome.exit_code not in (EXIT_OK, EXIT_RESUME):
        tell_failure(outcome, console)
    picture = _picture(folder, console)
    if outcome.exit_code == EXIT_RESUME:
        console.print(Text(outcome.message, style="yellow"))
    lines = _next_steps(outcome.exit_code, folder, again)
    if picture is not None:
        lines["picture"] = os.path.relpath(picture)
    if unshipped_by(folder):
        lines["ship"] = f"python -m aiftrain ship {shlex.quote(os.path.relpath(folder.path))}"
    for name, what in lines.items():
        console.print(Text(f"{name:<8} {what}"), soft_wrap=True)


def _next_steps(exit_code: int, folder: RunFolder, again: str) -> dict[str, str]:
    """Commands that make sense now. The same command again makes none where it asked for something impossible."""
    run = shlex.quote(os.path.relpath(folder.path))
    if exit_code == EXIT_OK:
        return {
            "sample": f'python -m aiftrain sample {run} "Once"',
            "export": f"python -m aiftrain checkpoints export {run}",
        }
    return {} if exit_code == EXIT_USER else {"go on": again}


def tell_failure(outcome: Outcome, console: Console) -> None:
    """The first real error, and the end of the log of the rank that had it."""
    console.print(Text(outcome.message, style="bold red"), soft_wrap=True)
    if outcome.log is None:
        return
    console.print(Text(f"the end of {os.path.relpath(outcome.log)}:"), soft_wrap=True)
    for line in last_lines(outcome.log):
        console.print(Text(f"  | {line}", style="dim"), soft_wrap=True)


def _picture(folder: RunFolder, console: Console) -> Path | None:
    try:
        return draw(folder)
    except AiftrainError as error:
        console.print(Text(str(error), style="dim"), soft_wrap=True)
        return None
