"""`logs`: the right rank's and attempt's, followed to the end of the run."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from tests.launch.runs import Screen, attempt, until


def test_the_newest_attempts_first_rank_unless_asked_otherwise(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(run_folder, 1, {0: 75}, log="one\n")
    attempt(run_folder, 2, {0: 0}, log="two: läuft\n")
    (run_folder.attempt_logs(2) / "rank-00001.log").write_bytes(b"other \xff\n")
    for words, shown in (
        ([], "two: läuft\n"),
        (["--attempt", "1"], "one\n"),
        (["--rank", "1"], "other \\xff\n"),
    ):
        assert main(["logs", str(run_folder.path), *words]) == 0
        assert capsys.readouterr().out == shown
    assert main(["logs", str(run_folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == ["two: läuft"]


def test_what_is_not_there_is_said(run_folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(run_folder.path)]) == 2
    assert "no rank of it was ever started" in capsys.readouterr().err
    attempt(run_folder, 1, {0: 1})
    (run_folder.attempt_logs(1) / "launcher.log").touch()
    for words, message in (
        (["--attempt", "7"], "there is no attempt 7: the newest is 1"),
        (["--rank", "5"], "1 ranks have one. See"),
        (["-f", "--json"], "does not go with -f"),
    ):
        assert main(["logs", str(run_folder.path), *words]) == 2
        assert message in capsys.readouterr().err


def test_following_goes_from_attempt_to_attempt_and_ends_with_the_run(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    screen = Screen(capsys)

    def train() -> None:
        until(lambda: "one\n" in screen.text)
        _append(run_folder.attempt_logs(1) / "rank-00000.log", "one more: ä".encode()[:-1])
        until(lambda: "one more" in screen.text)
        _append(run_folder.attempt_logs(1) / "rank-00000.log", "ä\n".encode()[1:])
        attempt(run_folder, 2, {0: None}, log="two\n")
        until(lambda: "two\n" in screen.text)
        _append(run_folder.attempt_logs(2) / "rank-00000.log", b"the end\n")
        lock.release()

    attempt(run_folder, 1, {0: None}, log="one\n")
    trainer = threading.Thread(target=train)
    trainer.start()
    assert main(["logs", str(run_folder.path), "-f"]) == 0
    trainer.join()
    assert screen.text == "one\none more: ä\ntwo\nthe end\n"


def _append(file: Path, text: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(text)


def test_a_folder_that_goes_away_meanwhile_is_told(
    run_folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = RunLock(run_folder.lock)
    lock.acquire()
    attempt(run_folder, 1, {0: None}, log="one\n")

    def remove() -> None:
        until(lambda: "one\n" in capsys.readouterr().out)
        run_folder.path.rename(tmp_path / "elsewhere")

    remover = threading.Thread(target=remove)
    remover.start()
    assert main(["logs", str(run_folder.path), "-f"]) == 2
    remover.join()
    lock.release()
    assert "is no run folder" in capsys.readouterr().err
