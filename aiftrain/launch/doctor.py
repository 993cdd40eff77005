"""Is this machine, this environment, this allocation fit to run a run? Each check is a row; nothing is started."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from aiftrain.checkpoint.stores.filesystem import FileSystem
from aiftrain.errors import AiftrainError
from aiftrain.plan.here import this_node
from aiftrain.plan.limits import is_queued
from aiftrain.plan.memory import checkpoint_bytes
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.process import has_package
from aiftrain.run.quota import Room, quotas
from aiftrain.run.room import existing
from aiftrain.run.spec import RunSpec

State = Literal["ok", "warn", "fail"]

_GIB = 2**30
_FEW_INODES = 10_000
_FEW_OPEN_FILES = 4_096
_LOOSE_LIPS = ("WANDB_API_KEY", "WANDB_BASE_URL", "HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN")
_COMMANDS = {"slurm": ("sbatch", "srun", "scontrol"), "pbs": ("qsub", "qstat", "qdel")}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Check:
    """What was looked at, how it stands, what was found, and what would help."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine(spec: RunSpec, environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Every check for the run that `spec` describes. The machine is fit if none of them fails."""
    return [
        *_python(spec),
        *_machine(spec),
        *_storage(spec),
        *_site(spec, environ),
        *_privacy(environ),
    ]


def _python(spec: RunSpec) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        yield Check("Python", "ok", version)
    else:
        yield Check("Python", "fail", version, "aiftrain is tested with Python 3.11")
    yield from (_package(name, _trains_here(spec)) for name in ("torch", "deepspeed"))
    yield _package("wandb", spec.tracking.wandb != "off" and _trains_here(spec))
    yield _package("matplotlib", needed=False)
    yield _compiler(spec)


def _package(name: str, needed: bool) -> Check:
    """Looked up, not imported: torch alone takes seconds."""
    if has_package(name):
        return Check(name, "ok", _version(name))
    return Check(name, "fail" if needed else "warn", "not installed", "python -m pip install 'aiftrain[train]'")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "installed, of unknown version"


def _compiler(spec: RunSpec) -> Check:
    found = shutil.which("g++") or shutil.which("clang++")
    if found:
        return Check("C++ compiler", "ok", found)
    advice = "train.compile=true needs one: install g++, or load the site's compiler module"
    return Check("C++ compiler", "fail" if spec.train.compile and _trains_here(spec) else "warn", "none", advice)


def _machine(spec: RunSpec) -> Iterator[Check]:
    node = this_node()
    yield Check("cores", "ok", f"{node.cores} usable")
    memory = "unknown" if node.memory_gib is None else f"{node.memory_gib} GiB"
    yield Check("memory", "warn" if node.memory_gib is None else "ok", memory)
    yield _room("shared memory", Path("/dev/shm"), _GIB, "ranks on one node use it; a container may need --shm-size")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= files < _FEW_OPEN_FILES  # -1 is no limit
    yield Check("open files", "warn" if few else "ok", str(files), f"ulimit -n {_FEW_OPEN_FILES}" if few else "")
    yield _accelerators(spec)


def _accelerators(spec: RunSpec) -> Check:
    nvidia = list(Path("/dev").glob("nvidia[0-9]*"))
    amd = list(Path("/dev/dri").glob("renderD*")) if Path("/dev/kfd").exists() else []
    found = ", ".join([f"{len(nvidia)} NVIDIA"] * bool(nvidia) + [f"{len(amd)} AMD"] * bool(amd)) or "none"
    seen = {"cuda": bool(nvidia), "rocm": bool(amd), "cpu": True}[spec.hardware.kind]
    if seen or not _trains_here(spec):
        return Check("accelerators", "ok", found)
    return Check(
        "accelerators", "fail", found, f"hardware={spec.hardware.name} wants {spec.hardware.kind}; try hardware=cpu"
    )


def _storage(spec: RunSpec) -> Iterator[Check]:
    folder = existing(Path(spec.run_folder))
    checkpoints = existing(Path(spec.storage.path)) if spec.storage.path else folder
    yield _writable("run folder", folder)
    need = checkpoint_bytes(spec) * (spec.storage.keep_last + 1)
    yield _room("checkpoint space", checkpoints, need, "storage.keep_last and storage.path decide what is needed where")
    yield file_system_check(checkpoints)
    yield _inodes(checkpoints)
    yield from (_quota(room, need) for room in quotas(checkpoints))
    yield _room("temporary space", Path(tempfile.gettempdir()), _GIB, "TMPDIR may name another folder")
    yield _lock(RunFolder(spec.run_folder))


def _writable(name: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, "ok", f"{folder} can be written")
    except OSError as error:
        return Check(name, "fail", f"{folder}: {error.strerror}", "run_dir=<a folder that you may write>")


def _room(name: str, folder: Path, need: int, advice: str) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name, "warn", f"{folder}: {error.strerror}", advice)
    found = f"{free / _GIB:,.1f} GiB free at {folder}, {need / _GIB:,.1f} wanted"
    return Check(name, "ok", found) if free >= need else Check(name, "warn", found, advice)


def file_system_check(folder: Path) -> Check:
    """What a folder for checkpoints is on; memory is a warning."""
    found = FileSystem.of(folder)
    return Check("file system", "warn" if found.is_memory else "ok", str(found), found.warning)


def _inodes(folder: Path) -> Check:
    status = os.statvfs(folder)
    if status.f_files == 0 or status.f_favail >= _FEW_INODES:  # 0: this file system does not count them
        return Check("files", "ok", f"{status.f_favail:,} more fit" if status.f_files else "not counted here")
    return Check("files", "warn", f"{status.f_favail:,} more fit at {folder}", "the quota for files is nearly used up")


def _quota(room: Room, need: int) -> Check:
    octets = "" if room.octets is None else f"{room.octets / _GIB:,.1f} GiB"
    files = "" if room.files is None else f"{room.files:,} files"
    left = " and ".join(filter(None, [octets, files])) or "no limit"
    short = (room.octets is not None and room.octets < need) or (room.files is not None and room.files < _FEW_INODES)
    return Check(room.limit, "warn" if short else "ok", f"{left} left", "make room, or ask the site for more" * short)


def _lock(folder: RunFolder) -> Check:
    if not folder.lock.exists():
        return Check("lock", "ok", "no run goes on in the run folder")
    try:
        RunLock(folder.lock).check()
    except AiftrainError as error:
        return Check("lock", "fail", str(error))
    return Check("lock", "ok", "no run goes on in the run folder")


def _site(spec: RunSpec, environ: Mapping[str, str]) -> Iterator[Check]:
    yield Check("factory", "ok", f"{spec.factory.name}: {spec.factory.title}")
    commands = _COMMANDS["pbs" if spec.factory.scheduler == "pbs" else "slurm"]
    found = [name for name in commands if shutil.which(name)]
    missing = is_queued(spec) and len(found) < len(commands)
    advice = "log in to a login node of the site, or train here with factory=local" if missing else ""
    shown = ", ".join(found) or f"no {commands[0]}"
    yield Check("scheduler", "fail" if missing else "ok", shown, advice)
    job = environ.get("SLURM_JOB_ID") or environ.get("PBS_JOBID")
    yield Check("allocation", "ok", f"inside job {job}" if job else "none: this is no job")


def _privacy(environ: Mapping[str, str]) -> Iterator[Check]:
    """Variables by which data could leave. Values are never shown: some are secrets."""
    loose = [name for name in _LOOSE_LIPS if environ.get(name)]
    if environ.get("WANDB_MODE") == "online":
        loose.append("WANDB_MODE")
    advice = "ranks run offline whatever they say; unset them to be sure" if loose else ""
    yield Check("tracking and hubs", "warn" if loose else "ok", ", ".join(loose) or "no variable names one", advice)
    proxies = [name for name in _PROXIES if environ.get(name)]
    advice = "a way out of this machine" if proxies else ""
    yield Check("proxies", "warn" if proxies else "ok", ", ".join(proxies) or "none set", advice)


def _trains_here(spec: RunSpec) -> bool:
    return not is_queued(spec)
