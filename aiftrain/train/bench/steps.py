"""A training step of each strategy: the engine of a real run, on rows of random tokens."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial

import numpy as np
import torch
from deepspeed.utils import groups

from aiftrain.data.batches import Batch
from aiftrain.run.bench import Cases, Missing, Step, StepCase
from aiftrain.train.bench.pace import Setting, Timing, time_of
from aiftrain.train.engine import Engine
from aiftrain.train.measure import matmul_flops
from aiftrain.train.mesh import Mesh
from aiftrain.train.rendezvous import gather, gather_numbers
from aiftrain.train.start import new_engine

_LEAST_SHARE = 0.2  # of the matmul rate, at which a step that would take too long is not begun


def steps(setting: Setting, cases: Cases, budget: float) -> Iterator[Step | Missing]:
    """Each for its share of `budget` seconds; one that alone would take longer than all of them may is left out."""
    yield from cases.missing
    for case in cases.cases:
        expected = _expected_seconds(setting, case)
        if expected > budget:
            why = f"it would take up to {expected:,.0f} s: a smaller recipe or bench.layers, or more bench.seconds"
            yield Missing(what=f"a step of {case.strategy}", why=why)
        else:
            yield _step(setting, case, budget / len(cases.cases))


def random_batches(case: StepCase, rank: int) -> list[Batch]:
    """A rank's micro-batches of one step: rows of random tokens, each one document; the same where ranks share rows."""
    layout, length = case.execution.layout, case.spec.train.sequence_length
    random, shape = np.random.default_rng(layout.place(rank).data), (layout.micro_batch, length)
    return [_batch(random.integers(case.spec.model.vocab_size, size=shape)) for _ in range(layout.accumulation)]


def _batch(tokens: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Batch:
    documents, sources = np.zeros(tokens.shape, np.int32), np.zeros(len(tokens), np.int64)
    return Batch(tokens=tokens, targets=np.roll(tokens, -1, axis=1), documents=documents, sources=sources)


def _expected_seconds(setting: Setting, case: StepCase) -> float:
    rate = sum(gather_numbers(matmul_flops(setting.device, case.execution.precision), setting.device))
    train = case.spec.train
    return (
        case.spec.timeline.at(0).tokens_per_step
        * case.spec.model.flops_per_token(train.sequence_length)
        / (rate * _LEAST_SHARE)
    )


def _step(setting: Setting, case: StepCase, budget: float) -> Step | Missing:
    """The step, or why no engine could be built for it: the other strategies are timed all the same."""
    device, spec = setting.device, case.spec
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with _fresh_groups():
            timing = _timed(setting, case, budget)
    except EngineFailed as error:
        return Missing(what=f"a step of {case.strategy}", why=str(error))
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None
    tokens = spec.timeline.at(0).tokens_per_step
    return Step(
        strategy=case.strategy,
        precision=case.execution.precision,
        layers=spec.model.num_layers,
        parameters=spec.model.parameters,
        tokens=tokens,
        flops_per_token=spec.model.flops_per_token(spec.train.sequence_length),
        seconds=timing.slowest,
        tokens_per_s=tokens / timing.slowest,
        peak_memory_gib=peak,
        repetitions=timing.calls,
    )


def _timed(setting: Setting, case: StepCase, budget: float) -> Timing:
    """The engine lives no longer than this call."""
    _free(setting.device)
    mesh = Mesh.of(case.execution.layout, setting.rank)
    engine, batches = _engine(setting, case, mesh), random_batches(case, setting.rank)
    step = partial(engine.step, batches, case.spec.optimizer.lr, case.spec.timeline.at(0).tokens_per_step)
    try:
        return time_of(step, setting.device, budget)
    finally:
        engine.close()


@contextmanager
def _fresh_groups() -> Iterator[None]:
    """DeepSpeed keeps an engine's groups in variables of a module, where the next engine would find them."""
    before = {name: copy(value) for name, value in vars(groups).items() if name == "mpu" or name.isupper()}
    try:
        yield
    finally:
        vars(groups).update(before)


def _engine(setting: Setting, case: StepCase, mesh: Mesh) -> Engine:
    """Raises EngineFailed on all ranks where one cannot build it: a library or an option that is not there."""
    engine, error = None, ""
    try:
        engine = new_engine(case.spec, case.execution, case.deepspeed, setting.device, mesh)
    except Exception as failure:  # whatever it is, the other strategies can be timed
        error = f"{type(failure).__name__}: {failure}".partition("\n")[0]
    errors = [each for each in gather(error) if each]
    if engine is None or errors:
        raise EngineFailed(errors[0])
    return engine


class EngineFailed(Exception):
    """No engine for a strategy on this machine, and why."""


def _free(device: torch.device) -> None:
    """An engine's tensors and hooks hold each other: only the collector frees them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
