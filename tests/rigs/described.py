"""Sites as somebody who never saw conf/ describes them: sites/*.yaml, one cluster each, in Slurm's own words.

`slurm` holds nodes and partitions, `sacctmgr` what fills its database, `filter` the Lua of its submit filter (`job` is
what was asked for), `scontrol` what is done once it runs, and `jobs` what each factory that stands on this cluster must
get and must not. What nothing read tells is left open there: too little is refused, and never too much.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.rigs.shape import Shape, SlurmWords

Keys = Mapping[str, str | int | None]

FOLDER = Path(__file__).with_name("sites")

_FILTER = """
local function refuse(why)
  slurm.log_user(why)
  return slurm.ERROR
end
local function count(words)
  return tonumber((words or ""):match("^gres:gpu:.-(%d+)$") or 0)
end
local function gpus(job)  -- of one node
  return count(job.tres_per_node) + count(job.tres_per_job) / job.min_nodes
end
local function cpus(job)  -- of one node
  return job.ntasks_per_node * job.cpus_per_task
end
function slurm_job_submit(job, partitions, user)
@filter@
  return slurm.SUCCESS
end
function slurm_job_modify(change, job, partitions, user)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""


class Queue(NamedTuple):
    """Where a job goes by `choice` (keys of the launcher), its fewest and most nodes there and its longest time.

    `most` and `time` are None where nobody knows them.
    """

    choice: Keys
    least: int
    most: int | None
    time: str | None


class Jobs(NamedTuple):
    """A factory's queues, an account that may use them, and keys with values that any job is refused with."""

    factory: str
    account: str
    queues: tuple[Queue, ...]
    refused: tuple[tuple[str, str | None], ...]


class Cluster(NamedTuple):
    shape: Shape
    scontrol: tuple[tuple[str, ...], ...]
    jobs: tuple[Jobs, ...]


def read_cluster(name: str) -> Cluster:
    """The cluster of sites/NAME.yaml."""
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    text = _FILTER.replace("@filter@", document["filter"])
    words = SlurmWords(document["slurm"], document.get("sacctmgr", ""), text)
    commands = tuple(tuple(line.split()) for line in document.get("scontrol", "").splitlines())
    jobs = tuple(_jobs(factory, asked) for factory, asked in document["jobs"].items())
    return Cluster(Shape(name, nodes=0, cores=0, memory_mib=0, words=words), commands, jobs)


def _jobs(factory: str, asked: dict[str, Any]) -> Jobs:
    queues = tuple(
        Queue(queue.get("choice", {}), queue.get("least", 1), queue["nodes"], queue["time"])
        for queue in asked["queues"]
    )
    return Jobs(factory, asked["account"], queues, tuple(pair for each in asked["refuses"] for pair in each.items()))
