"""Time on the calendar: a chain of jobs under the site's time limit, with start-ups, checkpoints and failures.

Every job starts up, reads the newest checkpoint (but for the first), trains, and saves before its time is up.
Failures come at random, and the expected time is that of J. T. Daly's complete model (Future Generation Computer
Systems 22, 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan.limits import seconds_of, time_limit
from aiftrain.run.base import Strict
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec

DAY = 86400.0
HOUR = 3600.0

# Llama 3 (arXiv 2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days on 16,384 GPUs, 8 a node.
ASSUMED_FAILURES_PER_NODE_DAY = 419 / (54 * 16384 / 8)
# Jean Zay: 2.3 TB from 384 processes, 8 a node, in 40 s (stas00/ml-engineering, storage/README.md).
ASSUMED_WRITE_GB_PER_S = 2300 / 40
ASSUMED_WRITE_GB_PER_S_AND_NODE = ASSUMED_WRITE_GB_PER_S / 48

_FORWARD = 1 / 3  # of a training step: 2 of 6 FLOPs a weight
_READS = 2  # a resumption reads its checkpoint to verify it, then to load it
_HOPELESS = 5.0  # mean times between failures from one checkpoint to the next: 30 times the work would be done


class Calendar(Strict):
    """How long a run takes. `days` is `productive_days` and all overheads; the queue is not in it.

    The seconds of evaluation, checkpoints and restarts are sums over the run; `restart_seconds` are start-ups,
    resumptions, and the work that is expected to be lost in failures and done again.
    """

    steps: int
    seconds_per_step: float
    productive_days: float
    evaluation_seconds: float
    checkpoint_seconds: float
    restart_seconds: float
    queue_days: float | None
    jobs: int
    job_limit_seconds: int | None
    save_seconds: float  # of one checkpoint
    failures: float  # expected in the whole run
    best_save_every: int | None  # steps between checkpoints that lose the least time
    days: float
    device_hours: float
    node_hours: float
    overhead_fraction: float  # of `days`
    assumptions: tuple[str, ...]
    unknowns: tuple[str, ...]


@dataclass(frozen=True)
class _Pace:
    """Seconds that saving, coming back and waiting for a failure take, whatever the run's length."""

    save: float
    startup: float
    read: float  # a checkpoint, at a resumption
    between_failures: float  # infinite where nothing fails

    @property
    def resume(self) -> float:
        return self.startup + self.read


@dataclass(frozen=True)
class _Work:
    """Seconds of the run if it were one job that nothing disturbs."""

    productive: float
    evaluation: float
    saves: int
    saving: float

    @property
    def total(self) -> float:
        return self.productive + self.evaluation + self.saving


def calendar(
    spec: RunSpec,
    layout: ParallelLayout,
    *,
    seconds_per_step: float,
    checkpoint_bytes: int,
    write_gb_per_s: float | None,
    startup_seconds: float,
    failures_per_node_day: float | None,
) -> Calendar:
    """The calendar of a run whose steps take `seconds_per_step`. None: the documented assumption.

    Raises ConfigError where a job is over before it has trained one step, or where failures come so much more
    often than checkpoints that the run would hardly get on.
    """
    save = checkpoint_bytes / (1e9 * (write_gb_per_s or assumed_write_rate(layout.nodes)))
    pace = _Pace(save, startup_seconds, _READS * save, _between_failures(layout.nodes, failures_per_node_day))
    work = _work(spec, seconds_per_step, pace)
    expected = work.total * _stretch(work.total / work.saves, pace)
    jobs = _jobs(spec, expected, seconds_per_step, pace)
    coming_back = jobs * pace.startup + (jobs - 1) * pace.read
    total = expected + coming_back + (jobs - 1) * pace.save
    failures = expected / pace.between_failures
    return Calendar(
        steps=spec.timeline.total_steps,
        seconds_per_step=seconds_per_step,
        productive_days=work.productive / DAY,
        evaluation_seconds=work.evaluation,
        checkpoint_seconds=work.saving + (jobs - 1) * pace.save,
        restart_seconds=coming_back + expected - work.total,
        queue_days=_queue_days(spec, jobs + failures),
        jobs=jobs,
        job_limit_seconds=_limit(spec),
        save_seconds=pace.save,
        failures=failures,
        best_save_every=_best_save_every(seconds_per_step, pace),
        days=total / DAY,
        device_hours=total / HOUR * layout.world_size,
        node_hours=total / HOUR * layout.nodes,
        overhead_fraction=1 - work.productive / total,
        assumptions=tuple(_assumptions(layout.nodes, pace, write_gb_per_s, failures_per_node_day)),
        unknowns=() if spec.plan.queue_hours_per_job is not None else ("plan.queue_hours_per_job",),
    )


def assumed_write_rate(nodes: int) -> float:
    """GB/s at which `nodes` nodes save, where nobody documents what the site's file system gives one job."""
    return min(ASSUMED_WRITE_GB_PER_S, nodes * ASSUMED_WRITE_GB_PER_S_AND_NODE)


def evaluation_steps(spec: RunSpec) -> float:
    """Training steps that take as long as all evaluations of the run: forward passes alone."""
    train = spec.train
    between = (spec.timeline.total_steps - 1) // train.evaluate_every if train.evaluate_every else 0
    return (between + 1) * train.evaluate_batches * len(spec.data.sources) * _FORWARD


def _between_failures(nodes: int, per_node_day: float | None) -> float:
    rate = ASSUMED_FAILURES_PER_NODE_DAY if per_node_day is None else per_node_day
    return DAY / (rate * nodes) if rate else math.inf


def _work(spec: RunSpec, seconds_per_step: float, pace: _Pace) -> _Work:
    steps = spec.timeline.total_steps
    saves = -(-steps // spec.storage.save_every)
    return _Work(steps * seconds_per_step, evaluation_steps(spec) * seconds_per_step, saves, saves * pace.save)


def _stretch(interval: float, pace: _Pace) -> float:
    """How many times its own length the work takes, expected, with a checkpoint every `interval` seconds."""
    if math.isinf(pace.between_failures):
        return 1.0
    exposed = interval / pace.between_failures
    back = pace.resume / pace.between_failures
    if exposed + back > _HOPELESS:
        found = (
            f"{interval / HOUR:,.1f} hours between checkpoints, {pace.between_failures / HOUR:,.1f} between failures"
        )
        raise ConfigError([Problem("storage.save_every", found, "save more often, or use fewer nodes")])
    return math.exp(back) * math.expm1(exposed) / exposed


def _jobs(spec: RunSpec, work: float, seconds_per_step: float, pace: _Pace) -> int:
    """Jobs in the chain: as many as `work` seconds need under the time limit."""
    limit = _limit(spec)
    if limit is None:
        return 1
    useful = limit - pace.resume - pace.save
    if useful < seconds_per_step:
        found = f"a job of {time_limit(spec)} is over before it has trained a step of {seconds_per_step:,.1f} s"
        least = math.ceil((limit - useful + seconds_per_step) / 60)
        raise ConfigError([Problem("time", found, f"at least {least // 60:02}:{least % 60:02}:00")])
    return max(1, math.ceil(work / useful))


def _limit(spec: RunSpec) -> int | None:
    text = time_limit(spec)
    return seconds_of(text) if text else None


def _queue_days(spec: RunSpec, waits: float) -> float | None:
    hours = spec.plan.queue_hours_per_job
    return None if hours is None else waits * hours / 24


def _best_save_every(seconds_per_step: float, pace: _Pace) -> int | None:
    """The interval that loses the least, J. W. Young's sqrt(2 * save * time between failures), in steps."""
    if math.isinf(pace.between_failures):
        return None
    # Two roots: the product of what almost never fails with what it takes to save may be too large for a number.
    return max(1, round(math.sqrt(2 * pace.save) * math.sqrt(pace.between_failures) / seconds_per_step))


def _assumptions(nodes: int, pace: _Pace, write: float | None, failing: float | None) -> list[str]:
    notes = ["training waits while a checkpoint is written; each job resumes where the one before it saved"]
    if write is None:
        rate = assumed_write_rate(nodes)
        notes.append(f"checkpoints are written at {rate:,.1f} GB/s: 1.2 GB/s a node and at most 57.5, as on Jean Zay")
    if failing is None:
        days = pace.between_failures / DAY
        often = f"one every {days:,.1f} days" if days >= 1 else f"one every {days * 24:,.1f} hours"
        notes.append(f"nodes fail as often as in Llama 3's training (arXiv 2407.21783): here {often}")
    return notes
