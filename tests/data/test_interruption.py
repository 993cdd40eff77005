"""Preparation by several processes: killed in the middle, stopped by Ctrl-C, and started twice at once."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aiftrain.data.prepare import prepare
from aiftrain.errors import MachineError
from aiftrain.run.corpus import DataSpec
from tests.data.corpora import data_spec, texts, write_lines
from tests.data.test_prepare import PREPARE

_PATIENCE = 60.0  # seconds


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text for about eight work units."""
    return write_lines(tmp_path_factory.mktemp("corpus") / "de.jsonl", texts(20_000))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return _finish(data_spec(folder, {"de": corpus_file}))


def _finish(data: DataSpec) -> dict[str, str]:
    """Prepare, and return the digests of the files that matter, by their path in the cache."""
    prepare(data, vocab_size=300, seed=0)
    cache = Path(data.cache_dir)
    files = [file for file in cache.rglob("*") if file.is_file() and file.name not in ("lock", "files.jsonl")]
    return {str(file.relative_to(cache)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _start(data: DataSpec) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREPARE, data.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def _finished_units(data: DataSpec) -> list[Path]:
    return list(Path(data.cache_dir).glob("sources/*/units/*.json"))


def _workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_preparation_is_gone_on_with(
    tmp_path: Path, corpus_file: Path, undisturbed: dict[str, str], how: signal.Signals
) -> None:
    data = data_spec(tmp_path, {"de": corpus_file}, workers=2)
    process = _start(data)
    _wait_for(lambda: _finished_units(data))
    workers = _workers_of(process)
    process.send_signal(how)
    process.communicate()
    assert len(workers) == 2
    _wait_for(lambda: not any(map(_is_alive, workers)))

    finished = {file: file.stat().st_mtime_ns for file in _finished_units(data)}
    assert finished
    assert not list(Path(data.cache_dir).glob("sources/*/record.json"))
    (next(iter(finished)).parent / "000007.bin.4711.part").write_bytes(b"what a dead process was writing")

    again = _start(data)
    _wait_for(lambda: len(_finished_units(data)) > len(finished))
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in finished.items())  # they were not made again
    _, errors = again.communicate()
    assert (again.returncode, errors) == (0, "")
    assert _finish(data) == undisturbed


def test_one_worker_and_three_give_the_same(tmp_path: Path, corpus_file: Path, undisturbed: dict[str, str]) -> None:
    assert _finish(data_spec(tmp_path, {"de": corpus_file}, workers=3)) == undisturbed


def test_two_preparations_at_once_do_the_work_once(
    tmp_path: Path, corpus_file: Path, undisturbed: dict[str, str]
) -> None:
    data = data_spec(tmp_path, {"de": corpus_file})
    processes = [_start(data), _start(data)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert _finish(data) == undisturbed


def test_a_killed_worker_is_named_with_its_file(tmp_path: Path, corpus_file: Path) -> None:
    data = data_spec(tmp_path, {"de": corpus_file}, workers=2)
    process = _start(data)
    _wait_for(lambda: _finished_units(data))
    subprocess.run(["kill", "-KILL", str(_workers_of(process)[0])], check=True)
    _, errors = process.communicate()
    assert process.returncode == MachineError.exit_code
    assert f"a worker was killed by SIGKILL while it encoded {corpus_file}" in errors
    assert "Traceback" not in errors
