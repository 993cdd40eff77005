"""Fixtures that run real ranks over gloo: a tiny model on real text, in as many processes as asked for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aiftrain.checkpoint import writer
from aiftrain.checkpoint.ship import LOCK
from aiftrain.cli.run_folder import write_run
from aiftrain.data.corpus import PreparedCorpus
from aiftrain.data.prepare import prepare
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.lock import read_holder
from aiftrain.run.process import runs

NURSERY = Path(__file__).with_name("nursery.py")
TINY = [
    "recipe=smoke",
    "tracking=none",
    "model.vocab_size=400",
    "model.hidden_size=48",
    "model.intermediate_size=96",
    "model.num_layers=2",
    "model.num_heads=4",
    "model.num_kv_heads=2",
    "train.steps=20",
    "train.sequence_length=32",
    "train.global_batch=8",
    "train.micro_batch=2",
    "train.precision=fp32",
    "train.evaluate_every=10",
    "train.evaluate_batches=1",
    "train.measure_matmul=false",
    "storage.save_every=5",
    "optimizer.warmup_steps=4",
]


class Nursery:
    """A process that forks ranks on demand."""

    def __init__(self) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(NURSERY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, folder: RunFolder, world: int, *, program: str = "aiftrain.train.__main__", **env: str) -> Ranks:
        """Start the run's ranks as the launcher would, or another program's in their place."""
        attempt = folder.last_attempt() + 1
        folder.attempt_logs(attempt).mkdir(parents=True)
        request = {"folder": str(folder.path), "world": world, "attempt": attempt, "port": _free_port(), "env": env}
        request["program"] = program
        return Ranks(self, folder, attempt, self.ask(request))

    def ask(self, message: dict[str, Any]) -> list[int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer: list[int] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Ranks:
    """The ranks of one attempt."""

    def __init__(self, nursery: Nursery, folder: RunFolder, attempt: int, pids: list[int]) -> None:
        self.nursery, self.folder, self.attempt, self.pids = nursery, folder, attempt, pids

    def wait(self) -> list[int]:
        """Exit codes, in order of rank; negative: the signal that ended it."""
        return self.nursery.ask({"wait": self.pids})

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            os.kill(pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def until(self, condition: Callable[[], bool], seconds: float = 120, grace: float = 10) -> None:
        """Wait until something is so; fail with the ranks' logs where it is not in time.

        Nor within `grace` seconds of their end: what they have started may still be at work then.
        """
        begin = last_alive = time.monotonic()
        while not condition():
            now = time.monotonic()
            last_alive = now if any(map(is_alive, self.pids)) else last_alive
            if now > min(begin + seconds, last_alive + grace):
                self.kill()
                pytest.fail(f"waited {now - begin:.0f} s in vain\n{self.log()}")
            time.sleep(0.005)

    def until_saved(self) -> None:
        """Until a checkpoint is complete: what a rank writes beside the training is not there when its step is over."""
        self.until(lambda: any(event["attempt"] == self.attempt for event in events(self.folder, "saved")))

    def writers(self) -> list[int]:
        """The process beside each rank that writes its shards."""
        return [pid for rank in self.pids for pid in children(rank) if runs(pid, writer.__file__)]

    def shippers(self) -> list[int]:
        """The one at work, which may be of ranks that are gone, and the one that waits for it to end."""
        holder = read_holder(self.folder.checkpoints / LOCK)
        found = {*([holder.pid] if holder else []), *children(self.pids[0])}
        return [pid for pid in found if runs(pid, "ship")]

    def log(self) -> str:
        logs = sorted(self.folder.attempt_logs(self.attempt).glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(encoding='utf-8')[-3000:]}" for log in logs)

    def message(self, rank: int = 0) -> str:
        """What the rank left for the launcher."""
        note = self.folder.attempt_logs(self.attempt) / f"rank-{rank:05d}.exit.json"
        return str(json.loads(note.read_text(encoding="utf-8"))["message"])


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small languages to learn from."""
    folder = tmp_path_factory.mktemp("text")
    for language, words in {
        "de": "der Hund und die Katze sehen das Haus",
        "fr": "le chien et le chat voient la maison",
    }.items():
        lines = [" ".join(words.split()[i % 7 :] + [str(i * 37 % 101)] * (i % 5)) for i in range(1500)]
        (folder / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def new_run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """Make a run folder as `launch` would, of the tiny run with changes."""
    cache = tmp_path_factory.mktemp("cache")
    corpora: dict[str, PreparedCorpus] = {}

    def make(*overrides: str, ranks: int = 2, folder: Path | None = None) -> RunFolder:
        where = folder or tmp_path_factory.mktemp("run")
        sources = [
            f"+data.sources.{name}={{kind: text, path: {text}/{name}.txt, split: line}}" for name in ("de", "fr")
        ]
        drop = ["~data.sources.python-docs", "~data.sources.python-source"]
        rest = [f"data.cache_dir={cache}", f"run_dir={where}", f"launcher.ranks_per_node={ranks}"]
        other_recipe = any(override.startswith("recipe=") for override in overrides)
        spec = resolve([*(TINY[1:] if other_recipe else TINY), *drop, *sources, *rest, *overrides])
        key = spec.data.model_dump_json() + str(spec.model.vocab_size)
        if key not in corpora:
            corpora[key] = prepare(spec.data, vocab_size=spec.model.vocab_size, seed=spec.seed)
        run = RunFolder(where)
        run.write_json(run.data_json, corpora[key].model_dump(mode="json"))
        write_run(run, spec, make_plan(spec))
        return run

    return make


def losses(folder: RunFolder, key: str = "loss") -> dict[int, Any]:
    """Step -> the last recorded value."""
    return {record["step"]: record[key] for record in read_lines(folder.metrics) if key in record}


def events(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return [event for event in read_lines(folder.events) if event["event"] == name]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Of threads that end meanwhile none, nor of a process that has ended."""
    found: list[str] = []
    for task in Path("/proc").glob(f"{pid}/task/*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "children").read_text(encoding="ascii").split()
    return list(map(int, found))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
