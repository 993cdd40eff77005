"""What `env lock` writes down: the software of the ranks' own Python, asked where and as the job will start it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.archive import is_staged
from aiftrain.launch.containers import image_file, used_container
from aiftrain.launch.environment import run_environment
from aiftrain.launch.packing import unpack
from aiftrain.launch.script import import_lines
from aiftrain.launch.step import native_python, program
from aiftrain.plan.limits import is_queued
from aiftrain.run.env_lock import EnvLock, LockedFile, Software
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec
from aiftrain.shipped import checkout, constraints_file

_BLOCK = 2**23  # bytes read at one time
_PATIENCE = 300  # seconds that modules, a container and Python may take to start


def make_lock(spec: RunSpec, software: Software, read: Callable[[int], None] = lambda octets: None) -> EnvLock:
    """The lock of a run whose ranks run with `software`; `read` hears how many more bytes of files are hashed."""
    commit, changed = _commit()
    return EnvLock(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        software=software,
        files={what: locked_file(file, read) for what, file in files(spec).items()},
        modules=spec.factory.modules if is_queued(spec) else (),
        commit=commit,
        changed=changed,
        constraints=hashlib.sha256(constraints_file().read_bytes()).hexdigest(),
    )


def files(spec: RunSpec) -> dict[str, Path]:
    """The files that hold software and are read before any Python runs. UserError where one is not here."""
    found = {}
    used = used_container(spec)
    if used and (image := image_file(used[0])):
        found["container image"] = image
    if spec.launcher.env_archive:
        found["packed environment"] = Path(spec.launcher.env_archive)
    if missing := [str(file) for file in found.values() if not file.is_file()]:
        raise UserError(f"there is no {' and no '.join(missing)} here")
    return found


def locked_file(file: Path, read: Callable[[int], None]) -> LockedFile:
    """Size, time of change and SHA-256; the path is that which links lead to."""
    file, digest = file.resolve(), hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                read(len(block))
            status = os.fstat(stream.fileno())
    except OSError as error:
        raise MachineError(f"cannot read {file}: {error.strerror}") from error
    return LockedFile(path=str(file), bytes=status.st_size, modified=status.st_mtime, sha256=digest.hexdigest())


def ask_software(spec: RunSpec, folder: RunFolder) -> Software:
    """What the ranks' Python says, started here as job.sh starts it: behind the site's modules, in the container.

    UserError with its last words where it does not start: not every login node can run what the nodes can.
    """
    folder.path.mkdir(parents=True, exist_ok=True)  # a container binds it
    modules = spec.factory.modules if is_queued(spec) else ()
    bash = ["bash", *(["-l"] if modules else []), "-c", "\n".join([*modules, *import_lines(spec), 'exec "$@"']), "bash"]
    with _ranks_python(spec, folder) as python:
        command = [*bash, *python, "-m", "aiftrain.run.software"]
        try:
            environment = os.environ | run_environment(spec)
            answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise _cannot_ask(python, f"no answer in {_PATIENCE} s", folder) from error
        if answer.returncode != 0:
            words = answer.stderr.strip() or f"exit code {answer.returncode}"
            raise _cannot_ask(python, words.splitlines()[-1], folder)
        return _read(answer.stdout, python, folder)


def _read(answer: str, python: list[str], folder: RunFolder) -> Software:
    """The last line: modules may have said something before."""
    try:
        return Software.model_validate(json.loads(answer.strip().rpartition("\n")[2]))
    except (ValueError, ValidationError) as error:
        raise _cannot_ask(python, f"it answers {answer.strip()[-200:]!r}", folder) from error


def _cannot_ask(python: list[str], why: str, folder: RunFolder) -> UserError:
    return UserError(
        f"the ranks' Python, {python[-1]}, does not say here what it has: {why}\n"
        "Where only the nodes can run it, start the run once and lock what its ranks found: "
        f"python -m aiftrain env lock --as-started {folder.path}"
    )


@contextmanager
def _ranks_python(spec: RunSpec, folder: RunFolder) -> Iterator[list[str]]:
    if is_staged(spec):
        with tempfile.TemporaryDirectory(prefix="aiftrain-") as temporary:
            unpack(Path(str(spec.launcher.env_archive)), Path(temporary))
            yield [str(Path(temporary, "bin", "python"))]
    elif used := used_container(spec):
        here = tuple(bind for bind in used[0].binds if Path(bind.partition(":")[0]).exists())  # some are on nodes only
        container = used[0].model_copy(update={"binds": here})
        factory = spec.factory.model_copy(update={"container": container})
        yield program(spec.model_copy(update={"factory": factory}), folder.path.resolve())
    else:
        yield [native_python(spec)]


def _commit() -> tuple[str | None, bool | None]:
    """The commit of aiftrain's checkout, and whether files that git knows differ from it."""
    root, git = checkout(), shutil.which("git")
    if root is None or git is None:
        return None, None
    commit, status = (
        subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    if commit.returncode != 0:
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())
