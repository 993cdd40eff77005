"""`ship`: what arrives and what does not, how it goes on, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pytest

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.cli import ship
from aiftrain.cli.main import main
from aiftrain.run.folder import RunFolder, append_line
from tests.checkpoint.saver import save_on
from tests.cli.program import ROOT, aiftrain
from tests.conftest import small_spec


class Run:
    """A run with an archive."""

    def __init__(self, folder: RunFolder, place: Path) -> None:
        place.mkdir()
        storage = {"name": "local", "save_every": 10, "archives": [str(place)]}
        spec = small_spec(storage=storage)
        folder.write(folder.run_json, spec.model_dump_json())
        self.folder = folder
        self.path = str(folder.path)
        self.place = place
        self.home = Catalog.of_run(folder, spec)
        self.lineage = spec.lineage

    def save(self, number: int = 1) -> None:
        """So many more checkpoints at home."""
        save_on(self.home, range(1, number + 1), None)

    def arrived(self) -> list[int]:
        return Archive(FolderStore(self.place), self.lineage).steps()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The verb in a process of its own."""
        command = [sys.executable, "-m", "aiftrain", "ship", self.path, *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)


@pytest.fixture
def run(run_folder: RunFolder, tmp_path: Path) -> Run:
    return Run(run_folder, tmp_path / "archive")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "_LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(ship, "_LOOKS", 0.001)


def test_all_arrives_and_the_second_time_there_is_nothing_to_do(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.save(2)
    assert main(["ship", run.path]) == 0
    assert "step 2 is at" in capsys.readouterr().out
    assert run.arrived() == [1, 2]
    assert main(["ship", run.path]) == 0
    assert capsys.readouterr().out.startswith("nothing to ship")


def test_for_programs_without_torch(run: Run, tmp_path: Path) -> None:
    run.save()
    done = aiftrain("ship", run.path, "--json", cwd=tmp_path, blocked=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["complete"] is True and document["failures"] == []
    assert [(each["step"], each["archive"]) for each in document["arrived"]] == [(1, str(run.place))]


def test_a_run_without_archives_has_nowhere_to_ship_to(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ship", str(run_folder.path)]) == 2
    assert "storage.archives=[" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pauses")
def test_an_archive_out_of_reach_is_a_failure_after_some_tries(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.save()
    run.place.rmdir()
    assert main(["ship", run.path]) == 1
    told = capsys.readouterr()
    assert told.out.count("there is no folder") == 5
    assert "the same command goes on" in told.err


@pytest.mark.usefixtures("no_pauses")
def test_who_follows_does_not_give_up(run: Run) -> None:
    run.save()
    run.place.rmdir()
    append_line(run.folder.events, {"event": "end", "exit_code": 0, "step": 1})
    Timer(0.5, run.place.mkdir).start()  # hundreds of tries later
    assert main(["ship", run.path, "--follow"]) == 0
    assert run.arrived() == [1]


def test_it_follows_a_run_to_its_end(run: Run) -> None:
    run.save()
    with run.start("--follow") as follower:
        run.until(lambda: run.arrived() == [1])
        run.save()
        append_line(run.folder.events, {"event": "end", "exit_code": 0, "step": 2})
        assert follower.wait(60) == 0
    assert run.arrived() == [1, 2]


def test_it_stops_when_it_is_told_to(run: Run) -> None:
    run.save()
    with run.start("--follow") as follower:
        run.until(lambda: run.arrived() == [1])
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(60) == 75
        assert follower.stderr is not None and "stopped by SIGTERM" in follower.stderr.read()


def test_beside_ranks_it_ends_when_they_are_gone_and_all_is_there(run: Run) -> None:
    with run.start("--with-ranks") as beside:
        time.sleep(0.5)
        run.save()
        assert beside.poll() is None
        assert beside.stdin is not None
        beside.stdin.close()
        assert beside.wait(60) == 0
    assert run.arrived() == [1]
