"""What a site allows (nodes, time, partition, precision), and what a launch needs besides (an account, data)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aiftrain.errors import Problem
from aiftrain.plan.fp8 import fp8_problems
from aiftrain.plan.groups import did_you_mean
from aiftrain.run.machine import Partition, Qos
from aiftrain.run.spec import Precision, RunSpec

DATA_ROOT = "<data.root>"  # stands in the paths of sources where data.root is not set; plans need no data

_SCHEDULED = {"slurm": "lumi", "pbs": "hunter"}  # a factory for each launcher that hands jobs to a scheduler
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")


def seconds_of(time: str) -> int | None:
    """Seconds of a time as Slurm writes it (MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS); None where it is none."""
    found = _TIME.fullmatch(time)
    if found is None:
        return None
    clock = [int(part) for part in found["clock"].split(":")]
    if found["days"] is not None:
        hours, minutes, seconds = clock + [0] * (3 - len(clock))
    else:
        hours, minutes, seconds = {1: (0, *clock, 0), 2: (0, *clock), 3: tuple(clock)}[len(clock)]
    return ((int(found["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def is_queued(spec: RunSpec) -> bool:
    """Whether the site's scheduler is to start the job. The other launchers start ranks here and now."""
    return spec.launcher.is_queued


def chosen_partition(spec: RunSpec) -> str | None:
    """The partition the job goes to: what was asked for, or the factory's default."""
    return spec.launcher.partition or spec.factory.partition


def chosen_qos(spec: RunSpec) -> str | None:
    """The quality of service the job names: what was asked for, or what its partition wants."""
    return spec.launcher.qos or _partition(spec).qos


def chosen_reservation(spec: RunSpec) -> str | None:
    """The reservation that jobs of the chosen quality of service run in."""
    return _qos(spec).reservation


def job_limits(spec: RunSpec) -> Partition:
    """What the partition allows, with what the quality of service changes of it, and never more nodes than are."""
    qos = _qos(spec)
    most = _partition(spec).max_nodes or spec.factory.nodes_total
    changes = {name: value for name in ("min_nodes", "max_nodes", "max_time") if (value := getattr(qos, name))}
    return _partition(spec).model_copy(update={"max_nodes": most} | changes)


def time_limit(spec: RunSpec) -> str | None:
    """The job's wall time: what was asked for, or the longest that its partition gives."""
    if spec.time or not is_queued(spec):
        return spec.time
    return job_limits(spec).max_time


def site_problems(spec: RunSpec) -> list[Problem]:
    """What the site would refuse: too many nodes, too long a time, a partition that it lacks."""
    if not is_queued(spec):
        return _local_problems(spec)
    if spec.factory.scheduler != spec.launcher.name:
        return [_wrong_scheduler(spec)]
    return _partition_problems(spec)


def _wrong_scheduler(spec: RunSpec) -> Problem:
    name, scheduler = spec.launcher.name, spec.factory.scheduler
    if scheduler == "none":
        fits = f"launcher=local, or a factory that has one, such as factory={_SCHEDULED[name]}"
        return Problem("launcher", f"launcher={name}, but factory {spec.factory.name} has no scheduler", fits)
    return Problem("launcher", f"launcher={name}, but {spec.factory.name} has {scheduler}", f"launcher={scheduler}")


def precision_problems(spec: RunSpec, precision: Precision) -> list[Problem]:
    """bf16 on a GPU that has none (a CPU only does it slowly), and 8-bit products that cannot be."""
    hardware, problems = spec.hardware, fp8_problems(spec, precision)
    if precision != "bf16" or hardware.bf16 or hardware.is_cpu:
        return problems
    fits = "train.precision=fp16, or train.precision=fp32"
    return [*problems, Problem("train.precision", f"bf16, but {hardware.name} has no bf16", fits)]


def launch_problems(spec: RunSpec) -> list[Problem]:
    """What a launch needs and a plan does not."""
    return data_problems(spec) + admission_problems(spec)


def admission_problems(spec: RunSpec) -> list[Problem]:
    """Why the site would let no job of this one in, whatever it does."""
    problems = []
    factory = spec.factory
    if factory.status == "announced":
        fits = "plan works; to launch, choose a factory in operation: python -m aiftrain factories"
        problems.append(Problem("factory", f"{factory.name} is announced and takes no jobs yet", fits))
    if factory.account_required and not spec.account and is_queued(spec):
        problems.append(
            Problem("account", f"{factory.name} takes no job without one", "account=<your project's account>")
        )
    return problems


def site_warnings(spec: RunSpec) -> Iterator[str]:
    """What a site would perhaps refuse. The form of accounts is often known from users alone: a warning, no more."""
    factory, account = spec.factory, spec.account
    if account and factory.account_pattern and is_queued(spec) and not re.search(factory.account_pattern, account):
        yield f"account={account}: accounts of {factory.name} are known to look like {factory.account_pattern}"


def data_problems(spec: RunSpec) -> list[Problem]:
    """data.root where sources lie under it and nobody said where it is."""
    waiting = [name for name, source in spec.data.sources.items() if source.path and DATA_ROOT in source.path]
    if not waiting:
        return []
    found = f"not set, and {len(waiting)} sources lie under it ({', '.join(waiting[:3])}, ...)"
    return [Problem("data.root", found, f"data.root=<folder that holds {waiting[0]}/, {waiting[-1]}/ and the others>")]


def _local_problems(spec: RunSpec) -> list[Problem]:
    if spec.nodes == 1 or spec.launcher.name in ("mpi", "deepspeed"):
        return []
    return [Problem("nodes", f"{spec.nodes}, but launcher=local starts ranks on this machine only", "nodes=1")]


def _partition(spec: RunSpec) -> Partition:
    return spec.factory.partitions.get(chosen_partition(spec) or "", Partition())


def _qos(spec: RunSpec) -> Qos:
    return spec.factory.qos.get(chosen_qos(spec) or "", Qos())


def _partition_problems(spec: RunSpec) -> list[Problem]:
    factory, name = spec.factory, chosen_partition(spec)
    problems = _time_problems(spec) + _qos_problems(spec)
    if name is not None and factory.partitions and name not in factory.partitions:
        names = list(factory.partitions)
        fits = f"{did_you_mean(name, names)}there are: {', '.join(names)}"
        return [Problem("launcher.partition", f"{factory.name} has no partition '{name}'", fits), *problems]
    return problems + _node_problems(spec)


def _qos_problems(spec: RunSpec) -> list[Problem]:
    """A quality of service that the site is not known to have, where any are known."""
    factory, asked = spec.factory, spec.launcher.qos
    known = [*factory.qos, *(queue.qos for queue in factory.partitions.values() if queue.qos)]
    if asked is None or not factory.qos or asked in known:
        return []
    ways = f"{did_you_mean(asked, known)}there are: {', '.join(dict.fromkeys(known))}"
    fits = f"{ways}; one that the site gave you: '+factory.qos.{asked}={{}}'"
    return [Problem("launcher.qos", f"{factory.name} has no quality of service '{asked}'", fits)]


def _node_problems(spec: RunSpec) -> list[Problem]:
    """More nodes than one job may have, or fewer than it must."""
    limits = job_limits(spec)
    most, least, where = limits.max_nodes, limits.min_nodes, f"{_queue(spec)} on {spec.factory.name}"
    if most is not None and spec.nodes > most:
        fits = _others(spec, f"nodes={most}")
        return [Problem("nodes", f"{spec.nodes}, but {where} gives a job at most {most}", fits)]
    if least is not None and spec.nodes < least:
        return [Problem("nodes", f"{spec.nodes}, but {where} is for {least} and more", _others(spec, f"nodes={least}"))]
    return []


def _others(spec: RunSpec, fits: str) -> str:
    """What fits here, and the partitions and qualities of service that give as many nodes as were asked for."""
    here = chosen_partition(spec)
    roomy = (name for name, queue in spec.factory.partitions.items() if name != here and _gives(queue, spec.nodes))
    better = (name for name, qos in spec.factory.qos.items() if _gives(qos, spec.nodes))
    ways = [*(f"launcher.partition={name}" for name in roomy), *(f"launcher.qos={name}" for name in better)]
    return " or ".join([fits, *ways])


def _gives(queue: Partition | Qos, nodes: int) -> bool:
    return queue.max_nodes is not None and (queue.min_nodes or 1) <= nodes <= queue.max_nodes


def _queue(spec: RunSpec) -> str:
    """The job's partition, and its quality of service where that sets other limits."""
    qos = chosen_qos(spec)
    names = (chosen_partition(spec), f"qos {qos}" if qos in spec.factory.qos else None)
    return " with ".join(name for name in names if name)


def _time_problems(spec: RunSpec) -> list[Problem]:
    if spec.time is None:
        return []
    asked = seconds_of(spec.time)
    if not asked:
        fits = "hours:minutes:seconds or days-hours, such as time=2-00:00:00"
        return [Problem("time", f"'{spec.time}' is no time that Slurm knows", fits)]
    most = job_limits(spec).max_time
    if most is not None and asked > (seconds_of(most) or asked):
        found = f"{spec.time} is longer than {_queue(spec)} on {spec.factory.name} allows"
        return [Problem("time", found, f"time={most} or less")]
    return []
