"""PBS Professional: the #PBS lines of job.sh, the mpiexec of PALS that starts the ranks, and qsub.

The options are those of qsub(1B) of OpenPBS, which is PBS Professional's source, and of the mpiexec of HPE's Parallel
Application Launch Service, as HPE's own command line declares them (github.com/Cray-HPE/craycli).
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from aiftrain.errors import AiftrainError, MachineError, UserError
from aiftrain.launch.header import chain_of, seconds_to_save
from aiftrain.launch.step import program
from aiftrain.plan.limits import chosen_partition, seconds_of, time_limit
from aiftrain.run.asking import Answer, ask
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.spec import RunSpec
from aiftrain.run.tasks import binds_cores, cores_per_rank

NO_QUEUE = "default"  # in a profile: a job that names no queue, which PBS then finds
_LONGEST_NAME = 230  # characters: PBS_MAXJOBNAME in pbs_ifl.h
_PATIENCE = 60  # seconds that qsub may take
_MACHINES_FAULT = ("cannot connect to server", "Communication failure")


def pbs_header(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    """One line an option. Raises UserError for an option that holds a line break."""
    for option in _options(spec, layout):
        if "\n" in option or "\r" in option:
            raise UserError(f"an option of qsub cannot hold a line break: {option!r}")
        yield f"#PBS {option}"


def pbs_exports(spec: RunSpec, layout: ParallelLayout, run_folder: Path) -> dict[str, str]:
    """What launchers/pbs.sh reads besides the run and its folder. Raises UserError for a chain of requeues."""
    limit = time_limit(spec)
    seconds = seconds_of(limit) if limit else None
    if chain_of(spec) == "requeue":
        raise UserError("chain=requeue: PBS lets only its operators requeue a job; launcher.chain=follow-up would work")
    python = program(spec, run_folder)
    return {
        "AIFTRAIN_STEP": shlex.join([*_mpiexec(spec, layout), *python]),
        "AIFTRAIN_PROGRAM": shlex.join(python),
        "AIFTRAIN_CHAIN": chain_of(spec),
        "AIFTRAIN_WALLTIME": str(seconds or ""),
        "AIFTRAIN_ASK_AFTER": str(seconds - seconds_to_save(limit)) if seconds else "",
        "OMP_NUM_THREADS": str(cores_per_rank(spec, layout) or 1),
    }


def submit_command(folder: RunFolder) -> list[str]:
    """What `submit` runs in the run folder, where the job's output goes too."""
    return ["qsub", folder.job_sh.name]


def submit(folder: RunFolder) -> str:
    """Submit job.sh, note the job's identifier in jobs.jsonl, and give it.

    Raises UserError where qsub is missing or refuses (with its words); MachineError where PBS does not answer.
    """
    if shutil.which("qsub") is None:
        raise UserError("there is no qsub here: submit from a login node of the site, or train here: factory=local")
    answer = _qsub(folder)
    if answer.returncode != 0:
        raise _refusal(answer.stderr.strip() or f"exit code {answer.returncode}")
    job = _identifier(answer.stdout)
    append_line(folder.jobs, {"job": job, "submitted": time.time()})
    return job


def _options(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    queue, limit = chosen_partition(spec), time_limit(spec)
    yield f"-N {_job_name(spec)}"
    yield "-j oe"  # one file for output and errors, in the folder that qsub is called from
    yield f"-l select={_chunks(spec, layout)}"
    yield "-l place=scatter"  # each chunk on a node of its own
    if limit and (seconds := seconds_of(limit)):
        yield f"-l walltime={_clock(seconds)}"
    if queue and queue != NO_QUEUE:
        yield f"-q {shlex.quote(queue)}"
    if spec.account:
        yield f"-W group_list={shlex.quote(spec.account)}"
    if spec.factory.requeue_on_node_failure is not None:
        yield f"-r {'y' if spec.factory.requeue_on_node_failure else 'n'}"
    yield from spec.launcher.extra


def _job_name(spec: RunSpec) -> str:
    """PBS takes letters, digits and a few signs."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"aiftrain-{spec.recipe}")[:_LONGEST_NAME]


def _chunks(spec: RunSpec, layout: ParallelLayout) -> str:
    """A chunk a node: what the site wants named of it, and a rank for each of its processes."""
    return ":".join([str(layout.nodes), *spec.factory.gpu_request, f"mpiprocs={layout.ranks_per_node}"])


def _clock(seconds: int) -> str:
    """PBS knows no days: 2-00:00:00 is 48:00:00."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _mpiexec(spec: RunSpec, layout: ParallelLayout) -> Iterator[str]:
    yield from ("mpiexec", "-n", str(layout.world_size), "--ppn", str(layout.ranks_per_node))
    if binds_cores(spec, layout):
        yield from ("--cpu-bind", str(spec.factory.cpu_bind))
    elif cores := cores_per_rank(spec, layout):
        yield from ("--depth", str(cores), "--cpu-bind", "depth")


def _qsub(folder: RunFolder) -> Answer:
    look = "look with qstat whether the job is in"
    return ask(submit_command(folder), patience=_PATIENCE, folder=folder.path, then=look)


def _refusal(words: str) -> AiftrainError:
    """Whose fault it is, as far as PBS' words tell."""
    if any(fault in words for fault in _MACHINES_FAULT):
        return MachineError(f"PBS does not answer: {words}")
    hint = "; the account is a Unix group of yours: `id -Gn` names them" if "Bad GID" in words else ""
    return UserError(f"qsub refused the job: {words}{hint}")


def _identifier(answer: str) -> str:
    """From qsub: NUMBER.SERVER on its last line; what a site prints before it is passed over."""
    lines = answer.split()
    if not lines or not re.fullmatch(r"\d+(\.[\w.-]+)?", lines[-1]):
        raise MachineError(f"qsub gave no job identifier but {answer.strip()!r}; look with qstat whether the job is in")
    return lines[-1]
