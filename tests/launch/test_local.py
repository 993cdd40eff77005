"""Starting ranks on this machine: real torchrun and real processes; a stand-in takes the trainer's place."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from aiftrain.errors import UserError
from aiftrain.launch.local import run_local
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.process import runs
from tests.conftest import small_execution

pytestmark = pytest.mark.ranks
MODULE = "tests.launch.stand_in"
STEPS = {"does": "steps", "steps": 5, "seconds": 0.05}
LONG = {"does": "steps", "steps": 400, "seconds": 0.1}


def behave(folder: RunFolder, *behaviours: dict[str, object]) -> None:
    (folder.path / "behaviour.json").write_text(json.dumps(dict(enumerate(behaviours))))


def train(folder: RunFolder, ranks: int = 2) -> tuple[int, str]:
    screen = io.StringIO()
    console = Console(file=screen, width=120)
    code = run_local(folder, small_execution(ranks), console, again="python -m aiftrain again", module=MODULE)
    return code, screen.getvalue()


def pids(folder: RunFolder) -> list[int]:
    texts = [start.read_text() for start in folder.logs.glob("attempt-*/rank-*.start.json")]
    return [json.loads(text)["pid"] for text in texts if text]


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    def watch() -> None:
        wait_for(condition)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_ends_says_what_to_do_next(run_folder: RunFolder) -> None:
    behave(run_folder, STEPS, STEPS)
    code, screen = train(run_folder)
    assert code == 0
    assert "step 5/20" in screen
    assert "aiftrain sample" in screen and "checkpoints export" in screen and "loss.png" in screen
    assert (run_folder.attempt_logs(1) / "launcher.log").is_file()
    assert not any(runs(pid) for pid in pids(run_folder))


def test_the_first_real_error_is_what_the_user_sees(run_folder: RunFolder) -> None:
    fail = {"does": "fail", "code": 1}
    peer = fail | {
        "after": "rank-00001.start.json",
        "message": "RuntimeError: Connection closed by peer [127.0.0.1]:999",
    }
    behave(run_folder, peer, fail | {"after": "rank-00000.exit.json", "message": "the disk is full"})
    code, screen = train(run_folder)
    assert code == 1
    assert "rank 1: the disk is full" in screen
    assert "rank-00001.log" in screen and "Traceback of rank 1" in screen
    assert "python -m aiftrain again" in screen


def test_a_user_error_of_a_rank_is_exit_2(run_folder: RunFolder) -> None:
    behave(run_folder, *[{"does": "fail", "code": 2, "message": "the checkpoint is of another model"}] * 2)
    code, screen = train(run_folder)
    assert code == 2
    assert "the checkpoint is of another model" in screen


def test_a_killed_rank_is_named(run_folder: RunFolder) -> None:
    peer = {"does": "fail", "after": "rank-00001.start.json", "code": 1, "message": "Connection closed by peer"}
    behave(run_folder, peer, {"does": "vanish"})
    code, screen = train(run_folder)
    assert code == 1
    assert "rank 1 vanished" in screen and "kill -9" in screen


@pytest.mark.slow
def test_ranks_that_wait_for_a_lost_one_are_ended_and_not_blamed(run_folder: RunFolder) -> None:
    behave(run_folder, {"does": "wait"}, {"does": "vanish"})
    code, screen = train(run_folder)
    assert code == 1
    assert "rank 1 vanished" in screen
    assert not any(runs(pid) for pid in pids(run_folder))


def test_interrupted_ranks_save_and_leave_with_75(run_folder: RunFolder) -> None:
    behave(run_folder, LONG | {"save": 0.3}, LONG | {"save": 0.3})
    interrupter = when(lambda: len(pids(run_folder)) == 2, interrupt)
    code, screen = train(run_folder)
    interrupter.join()
    assert code == 75
    assert "everything is saved" in screen and "python -m aiftrain again" in screen
    assert {p.name for p in run_folder.attempt_logs(1).glob("saved-*")} == {"saved-0", "saved-1"}


def test_a_second_interrupt_kills_ranks_that_hang(run_folder: RunFolder) -> None:
    behave(run_folder, {"does": "wait"}, {"does": "wait"})
    logs = run_folder.attempt_logs(1)
    first = when((logs / "asked-1-0").is_file, interrupt)
    second = when((logs / "asked-1-1").is_file, interrupt)
    code, screen = train(run_folder)
    first.join()
    second.join()
    assert code == 75
    assert "before the ranks could save" in screen
    assert not any(runs(pid) for pid in pids(run_folder))


def test_interrupted_before_any_rank_is_up(run_folder: RunFolder) -> None:
    behave(run_folder, LONG, LONG)
    interrupter = when((run_folder.attempt_logs(1) / "launcher.log").is_file, interrupt)
    code, _ = train(run_folder)
    interrupter.join()
    assert code == 75


def test_a_second_start_on_the_same_folder_is_refused(run_folder: RunFolder) -> None:
    behave(run_folder, STEPS, STEPS)
    lock = RunLock(run_folder.lock)
    lock.acquire()
    with pytest.raises(UserError, match=f"process {os.getpid()} on .*, since 20"):
        train(run_folder)
    assert not run_folder.logs.exists()
    lock.release()


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(run_folder: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other; $(run)")
    other.write(other.run_json, run_folder.run_json.read_text())
    processes = []
    for folder in (run_folder, other):
        behave(folder, STEPS, STEPS)
        processes.append(start_launcher(folder))
    assert [process.wait(60) for process in processes] == [0, 0]


def test_ranks_save_and_leave_when_the_launcher_is_killed(run_folder: RunFolder) -> None:
    behave(run_folder, LONG, LONG)
    launcher = start_launcher(run_folder)
    wait_for(lambda: len(pids(run_folder)) == 2)
    launcher.kill()
    launcher.wait()
    logs = run_folder.attempt_logs(1)
    wait_for(lambda: (logs / "rank-00000.exit.json").is_file() and (logs / "rank-00001.exit.json").is_file())
    assert {json.loads(p.read_text())["exit_code"] for p in logs.glob("*.exit.json")} == {75}
    wait_for(lambda: not any(runs(pid) for pid in pids(run_folder)))


def start_launcher(folder: RunFolder) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from rich.console import Console; from aiftrain.launch.local import run_local;"
        "from aiftrain.run.folder import RunFolder; from tests.conftest import small_execution;"
        f"sys.exit(run_local(RunFolder(sys.argv[1]), small_execution(), Console(), module={MODULE!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(folder.path)], stdout=subprocess.DEVNULL)
