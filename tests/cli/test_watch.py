"""`watch`: a run that somebody else started is shown from attempt to attempt, to its end."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from tests.launch.runs import Screen, attempt, planned, step, until


def test_a_run_is_shown_to_its_end(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    screen = Screen(capsys)

    def shown(words: str) -> bool:
        return words in screen.text

    def train() -> None:
        until(lambda: shown("running: process"))
        for number in (1, 2):
            attempt(run_folder, number, {0: None})
            step(run_folder, number, attempt=number)
            until(partial(shown, f"step {number}/20"))
        lock.release()

    trainer = threading.Thread(target=train)
    trainer.start()
    assert main(["watch", str(run_folder.path)]) == 0
    trainer.join()


def test_a_run_that_has_ended_says_how(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(planned(run_folder), 1, {0: 75, 1: 75})
    assert main(["watch", str(run_folder.path)]) == 0
    assert capsys.readouterr().out == "stopped early: everything is saved\n"
    assert main(["watch", str(run_folder.path), "--json"]) == 2
    assert "status --json" in capsys.readouterr().err


def test_a_folder_that_goes_away_meanwhile_is_told(
    run_folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    attempt(run_folder, 1, {0: None})
    step(run_folder, 1)

    def remove() -> None:
        until(lambda: "step 1/20" in capsys.readouterr().out)
        run_folder.path.rename(tmp_path / "elsewhere")

    remover = threading.Thread(target=remove)
    remover.start()
    assert main(["watch", str(run_folder.path)]) == 2
    remover.join()
    lock.release()
    assert "is no run folder" in capsys.readouterr().err
