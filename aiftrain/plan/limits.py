"""What a site allows (nodes, time, partition), and what a launch needs besides (an account, data, a site that runs)."""

from __future__ import annotations

import re

from aiftrain.errors import Problem
from aiftrain.plan.groups import did_you_mean
from aiftrain.run.machine import Partition
from aiftrain.run.spec import RunSpec

DATA_ROOT = "<data.root>"  # stands in the paths of sources where data.root is not set; plans need no data

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


def chosen_partition(spec: RunSpec) -> str | None:
    """The partition the job goes to: what was asked for, or the factory's default."""
    return spec.launcher.partition or spec.factory.partition


def time_limit(spec: RunSpec) -> str | None:
    """The job's wall time: what was asked for, or the longest that its partition gives."""
    partition = spec.factory.partitions.get(chosen_partition(spec) or "")
    if spec.time or spec.launcher.name == "local":
        return spec.time
    return partition.max_time if partition else None


def site_problems(spec: RunSpec) -> list[Problem]:
    """What the site would refuse: too many nodes, too long a time, a partition that it lacks."""
    if spec.launcher.name == "local":
        return _local_problems(spec)
    if spec.factory.scheduler == "none":
        fits = "launcher=local, or a factory with Slurm, such as factory=lumi"
        return [Problem("launcher", f"launcher=slurm, but factory {spec.factory.name} has no scheduler", fits)]
    return _partition_problems(spec)


def launch_problems(spec: RunSpec) -> list[Problem]:
    """What a launch needs and a plan does not."""
    problems = data_problems(spec)
    factory = spec.factory
    if factory.status == "announced":
        fits = "plan works; to launch, choose a factory in operation: python -m aiftrain factories"
        problems.append(Problem("factory", f"{factory.name} is announced and takes no jobs yet", fits))
    if factory.account_required and not spec.account and spec.launcher.name != "local":
        problems.append(
            Problem("account", f"{factory.name} takes no job without one", "account=<your project's account>")
        )
    return problems


def data_problems(spec: RunSpec) -> list[Problem]:
    """data.root where sources lie under it and nobody said where it is."""
    waiting = [name for name, source in spec.data.sources.items() if source.path and DATA_ROOT in source.path]
    if not waiting:
        return []
    found = f"not set, and {len(waiting)} sources lie under it ({', '.join(waiting[:3])}, ...)"
    return [Problem("data.root", found, f"data.root=<folder that holds {waiting[0]}/, {waiting[-1]}/ and the others>")]


def _local_problems(spec: RunSpec) -> list[Problem]:
    if spec.nodes == 1:
        return []
    return [Problem("nodes", f"{spec.nodes}, but launcher=local starts ranks on this machine only", "nodes=1")]


def _partition_problems(spec: RunSpec) -> list[Problem]:
    factory, name = spec.factory, chosen_partition(spec)
    if name is None or not factory.partitions:
        return _time_problems(spec, None)
    if name not in factory.partitions:
        names = list(factory.partitions)
        fits = f"{did_you_mean(name, names)}there are: {', '.join(names)}"
        return [
            Problem("launcher.partition", f"{factory.name} has no partition '{name}'", fits),
            *_time_problems(spec, None),
        ]
    partition = factory.partitions[name]
    problems = _time_problems(spec, partition)
    if partition.max_nodes is not None and spec.nodes > partition.max_nodes:
        found = f"{spec.nodes}, but {name} on {factory.name} gives a job at most {partition.max_nodes}"
        problems.append(Problem("nodes", found, _roomier(spec, name, partition.max_nodes)))
    return problems


def _roomier(spec: RunSpec, name: str, most: int) -> str:
    """Fewer nodes, or the partitions that give as many as were asked for."""
    others = [
        other
        for other, partition in spec.factory.partitions.items()
        if other != name and partition.max_nodes is not None and partition.max_nodes >= spec.nodes
    ]
    return " or ".join([f"nodes={most}", *(f"launcher.partition={other}" for other in others)])


def _time_problems(spec: RunSpec, partition: Partition | None) -> list[Problem]:
    if spec.time is None:
        return []
    asked = seconds_of(spec.time)
    if not asked:
        return [
            Problem(
                "time",
                f"'{spec.time}' is no time that Slurm knows",
                "hours:minutes:seconds or days-hours, such as time=2-00:00:00",
            )
        ]
    most = partition.max_time if partition else None
    if most is not None and asked > (seconds_of(most) or asked):
        return [
            Problem(
                "time",
                f"{spec.time} is longer than {chosen_partition(spec)} on {spec.factory.name} allows",
                f"time={most} or less",
            )
        ]
    return []
