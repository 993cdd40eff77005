"""The whole of a bench on one rank: meet the others, measure part by part, and write each figure down at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

from aiftrain.errors import EXIT_OK, EXIT_RESUME
from aiftrain.run.bench import Bench, Cases, Machine, Missing, Product, Record, Step, Stream, Transfer, read_cases
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.bench.collectives import transfers
from aiftrain.train.bench.matmul import products
from aiftrain.train.bench.memory import streams
from aiftrain.train.bench.pace import Setting
from aiftrain.train.bench.steps import steps
from aiftrain.train.egress import Egress
from aiftrain.train.process import StopRequest
from aiftrain.train.randomness import seed_everything
from aiftrain.train.rendezvous import agree, from_first, gather, join, meet, part
from aiftrain.train.start import begin
from aiftrain.train.tracking import write_event
from aiftrain.train.versions import library_versions

_SHARES = {"products": 0.2, "streams": 0.05, "transfers": 0.35, "steps": 0.4}  # of bench.seconds
_ALONE = {"products": 0.4, "streams": 0.1, "transfers": 0.0, "steps": 0.5}  # of a rank without links
_PARTS = {Product: "products", Stream: "streams", Transfer: "transfers", Step: "steps", Missing: "missing"}


def measure(folder: RunFolder, attempt: int, rank: Rank, stop: StopRequest) -> int:
    """Measure everything, or until a request to stop: what was measured by then is in bench.json. The exit code."""
    lock = RunLock(folder.lock)
    briefing, store = meet(rank, lambda: begin(folder, attempt, rank, lock))
    spec = briefing.spec
    Egress(spec, folder, attempt, rank).watch(store)
    device = join(rank, spec.hardware, store)
    seed_everything(spec.seed, rank.rank, deterministic=False)
    cases = from_first(lambda: read_cases(folder))
    setting = Setting(spec, device, rank.rank, gather(socket.gethostname()))
    notes = Notes(folder, attempt, new_bench(spec, setting)) if rank.rank == 0 else None
    complete = _measure_all(setting, cases, stop, notes)
    if notes:
        notes.end(complete)
    part()
    lock.release()
    return EXIT_OK if complete else EXIT_RESUME


class Notes:
    """bench.json as it grows: written anew after each figure, by rank 0."""

    def __init__(self, folder: RunFolder, attempt: int, bench: Bench) -> None:
        self._folder, self._attempt, self._bench = folder, attempt, bench
        self._started = time.perf_counter()
        write_event(folder, attempt, "start", world_size=bench.machine.ranks)
        self._write()

    def add(self, record: Record) -> None:
        """Write a figure down."""
        name = _PARTS[type(record)]
        self._bench = self._bench.model_copy(update={name: (*getattr(self._bench, name), record)})
        self._write()
        print(record, flush=True)

    def end(self, complete: bool) -> None:
        """Say that there is no more to come."""
        self._bench = self._bench.model_copy(update={"complete": complete})
        self._write()
        write_event(self._folder, self._attempt, "end", exit_code=EXIT_OK if complete else EXIT_RESUME)

    def _write(self) -> None:
        taken = round(time.perf_counter() - self._started, 3)
        self._bench = self._bench.model_copy(update={"seconds_taken": taken})
        self._folder.write_json(self._folder.bench_json, self._bench.model_dump(mode="json"))


def new_bench(spec: RunSpec, setting: Setting) -> Bench:
    """An empty result that says where and with what is measured."""
    nodes = len(set(setting.hosts))
    on_gpu = setting.device.type == "cuda"
    machine = Machine(
        factory=spec.factory.name,
        hardware=spec.hardware.name,
        device=torch.cuda.get_device_name(setting.device) if on_gpu else processor(),
        nodes=nodes,
        ranks=len(setting.hosts),
        ranks_per_node=-(-len(setting.hosts) // nodes),
        threads=torch.get_num_threads(),
        backend=torch.distributed.get_backend(),
    )
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Bench(date=date, recipe=spec.recipe, machine=machine, versions=library_versions())


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What this machine's processor calls itself; arm64 tells numbers alone, which say little."""
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "CPU"


def _measure_all(setting: Setting, cases: Cases, stop: StopRequest, notes: Notes | None) -> bool:
    """Whether it came to the end. After each figure the ranks agree whether to go on."""
    for record in _records(setting, cases):
        if notes:
            notes.add(record)
        if agree([bool(stop.signal)], setting.device)[0]:
            return False
    return True


def _records(setting: Setting, cases: Cases) -> Iterator[Record]:
    shares = _SHARES if len(setting.hosts) > 1 else _ALONE
    seconds = {name: share * setting.spec.bench.seconds for name, share in shares.items()}
    yield from products(setting, seconds["products"])
    yield from streams(setting, seconds["streams"])
    yield from transfers(setting, seconds["transfers"])
    yield from steps(setting, cases, seconds["steps"])
