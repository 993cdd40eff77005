"""Ways to save one engine's state: our own, DeepSpeed's, and those of torch.distributed.checkpoint.

    RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 OMP_NUM_THREADS=2 \
        python -m benchmarks.checkpoints_ways SIZE VOCABULARY ROUNDS STEPS FOLDER

All save the very same tensors, fp32 weights and what AdamW keeps, in one process that goes on training. It prints a
JSON document: of each way a list of turns.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from aiftrain.data.batches import Batch
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.layout import ParallelLayout, make_layout
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from benchmarks.step_ours import new_engine, our_batches, run_spec
from benchmarks.step_task import LR, shape

if TYPE_CHECKING:
    from aiftrain.train.engine import Engine


class Way(ABC):
    """`begin` is what the loop calls after a step; then `goes_on` before each step, as long as it says so."""

    @abstractmethod
    def begin(self, step: int) -> None: ...

    def goes_on(self) -> bool:
        return False

    def facts(self) -> dict[str, float]:
        """What the way itself says of the save that has ended."""
        return {}


class Ours(Way):
    """The saver that a run has. One rank is always agreed: where it is ready, all are."""

    def __init__(self, spec: RunSpec, engine: Engine, folder: Path) -> None:
        from aiftrain.checkpoint.catalog import Catalog
        from aiftrain.train.saving import Saver
        from aiftrain.train.tracking import Tracker

        layout = make_layout(spec)
        assert isinstance(layout, ParallelLayout)
        folder.mkdir()
        rank, self._folder = Rank(), RunFolder(folder)
        tracker = Tracker(self._folder, spec, rank, attempt=1)
        self._saver = Saver(spec, layout, _no_corpus(), Catalog(folder / "checkpoints"), rank, tracker, lambda: None)
        self._engine = engine

    def begin(self, step: int) -> None:
        from aiftrain.train.snapshot import TrainState

        self._saver.save(self._engine, TrainState(step), {}, 0)

    def goes_on(self) -> bool:
        if self._saver.ready:
            self._saver.advance()
        return self._saver.under_way

    def facts(self) -> dict[str, float]:
        saved = [event for event in read_lines(self._folder.events) if event["event"] == "saved"][-1]
        return {name: saved[name] for name in ("bytes", "stall", "write_seconds", "read_seconds")}


class DeepSpeeds(Way):
    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine._engine, folder

    def begin(self, step: int) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._engine.save_checkpoint(str(self._folder), tag=f"step-{step}")


class Dcp(Way):
    """torch.distributed.checkpoint, waited for or not (then in a thread, from a copy in memory)."""

    def __init__(self, engine: Engine, folder: Path, *, waits: bool) -> None:
        self._engine, self._folder, self._waits = engine, folder, waits
        self._future: Future[Any] | None = None

    def begin(self, step: int) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        state = {
            f"{name}/{fragment.name}": view.detach()
            for fragment in self._engine.fragments()
            for name, view in fragment.views.items()
        }
        if self._waits:
            save(state, checkpoint_id=str(self._folder))
        else:
            future = async_save(state, checkpoint_id=str(self._folder))
            assert isinstance(future, Future)
            self._future = future

    def goes_on(self) -> bool:
        if self._future is None or not self._future.done():
            return self._future is not None
        self._future.result()
        self._future = None
        return False


def _no_corpus() -> PreparedCorpus:
    tokenizer = PreparedTokenizer(path=Path(), digest="", vocab_size=2, eos_id=0)
    return PreparedCorpus(name="none", tokenizer=tokenizer, sources={}, unigram_loss=0, digest="")


def ways(spec: RunSpec, engine: Engine, folder: Path) -> dict[str, Way]:
    """All of them, by name. `engine` is the run's."""
    spec = spec.model_copy(update={"storage": spec.storage.model_copy(update={"keep_last": 1})})
    blocking = spec.model_copy(update={"storage": spec.storage.model_copy(update={"background": False})})
    return {
        "aiftrain": Ours(spec, engine, folder / "background"),
        "aiftrain, blocking": Ours(blocking, engine, folder / "blocking"),
        "deepspeed": DeepSpeeds(engine, folder / "deepspeed"),
        "dcp": Dcp(engine, folder / "dcp", waits=True),
        "dcp, async": Dcp(engine, folder / "dcp-async", waits=False),
    }


class Loop:
    """Trains, and saves in one way at a time. `batches`: of each step, its micro-batches."""

    def __init__(self, engine: Engine, batches: Iterator[list[Batch]]) -> None:
        self._engine, self._batches, self._steps = engine, batches, 0

    def step(self) -> float:
        """Seconds."""
        batches, started = next(self._batches), time.perf_counter()
        self._engine.step(batches, LR, sum(batch.valid_tokens for batch in batches))
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize()
        self._steps += 1
        return time.perf_counter() - started

    def turn(self, way: Way, steps: int) -> dict[str, float]:
        """Some steps alone, then a save, and steps until it is whole.

        `call`: what the loop waits for `begin`. `during`: seconds of the steps begun before the save was whole, of
        which the first waits where the copy is not done.
        """
        alone = statistics.median(self.step() for _ in range(steps))
        started = time.perf_counter()
        way.begin(self._steps)
        call, during = time.perf_counter() - started, [self.step()]
        while way.goes_on():
            during.append(self.step())
        facts = {"alone": alone, "call": call, "first": during[0], "steps": len(during), "during": sum(during)}
        return facts | way.facts()


def take_turns(loop: Loop, contestants: dict[str, Way], rounds: int, steps: int) -> dict[str, list[dict[str, float]]]:
    """The turns of each way; the first round warms up, and does not count."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, way in contestants.items():
            os.sync()  # what the one before has left to the kernel is its own affair
            turn = loop.turn(way, steps)
            turns[name] += [turn] if number else []
    return turns


def main() -> None:
    size, vocabulary, rounds, steps, folder = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    spec = run_spec(shape(size, int(vocabulary)), stage=1, compiled=False, world=1)
    engine = new_engine(spec)
    loop = Loop(engine, ([batch] for batch in our_batches()))
    print(json.dumps(take_turns(loop, ways(spec, engine, Path(folder)), int(rounds), int(steps))), flush=True)
    os._exit(0)  # dcp leaves threads behind


if __name__ == "__main__":
    main()
