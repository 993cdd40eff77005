"""env.lock.json of a run folder: the software that `env lock` found, and the ranks' refusal to run with another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from aiftrain.errors import UserError
from aiftrain.run.base import Strict
from aiftrain.run.folder import RunFolder
from aiftrain.run.rank import Rank
from aiftrain.run.software import software

_NONE = "none"
_SHOWN = 12  # differences listed; more help nobody


class Software(Strict):
    """What the ranks run with. `packages` are normalized names and versions, without aiftrain itself."""

    python: str
    implementation: str
    machine: str  # x86_64, aarch64
    glibc: str | None
    torch: dict[str, str]  # version, cuda or hip, git_version, as far as they are known
    packages: dict[str, str]
    aiftrain: str
    code: str | None  # SHA-256 of aiftrain's Python files


class LockedFile(Strict):
    """A container image or a packed environment. `modified` in Unix seconds."""

    path: str
    bytes: int
    modified: float
    sha256: str


class EnvLock(Strict):
    """The whole of env.lock.json."""

    format: int = 1
    time: str  # when it was written, ISO 8601
    software: Software
    files: dict[str, LockedFile] = {}  # what they are -> which
    modules: tuple[str, ...] = ()  # shell lines before the ranks start
    commit: str | None = None  # of the checkout that aiftrain comes from
    changed: bool | None = None  # whether that checkout had changes that are in no commit
    constraints: str | None = None  # SHA-256 of constraints.txt


def read_lock(folder: RunFolder) -> EnvLock | None:
    """The run's lock, None where it has none. UserError where the file is none of ours."""
    if not folder.env_lock.is_file():
        return None
    try:
        return EnvLock.model_validate(json.loads(folder.env_lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{folder.env_lock} cannot be read as a lock: {error}") from error


def read_environment(folder: RunFolder) -> Software:
    """What rank 0 of the newest start found. UserError where none came so far."""
    file = folder.environment(folder.last_attempt())
    try:
        return Software.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"no start of {folder.path} has said yet what it runs with: {error}") from error


def check_software(folder: RunFolder, lock: EnvLock | None, attempt: int, rank: Rank) -> None:
    """For the first rank of a node. Rank 0 writes what it runs with; each refuses what the run's lock does not name.

    UserError with every difference. The code of aiftrain and the locked files are looked at by rank 0 alone.
    """
    first = rank.rank == 0
    now = Software.model_validate(software(code=first))
    if first:
        folder.write_json(folder.environment(attempt), now.model_dump(mode="json"))
    if lock is None:
        return
    found = [*differences(lock.software, now), *(changed_files(lock) if first else ())]
    if found:
        raise UserError("\n".join(_refusal(folder, found)))


def differences(locked: Software, now: Software) -> Iterator[str]:
    """What is not as it was, in words. The system's C library may differ from node to node, and is let be."""
    was, here = _facts(locked), _facts(now)
    for name in dict.fromkeys([*was, *here]):
        if was.get(name) != here.get(name):
            yield f"{name}: locked {was.get(name, _NONE)}, here {here.get(name, _NONE)}"
    if now.code is not None and now.code != locked.code and now.aiftrain == locked.aiftrain:
        yield f"aiftrain: {now.aiftrain} as locked, but its code has changed"


def changed_files(lock: EnvLock) -> Iterator[str]:
    """Locked files that are here, with another size or time of change; they are not read."""
    for what, locked in lock.files.items():
        try:
            status = Path(locked.path).stat()
        except OSError:  # an image is not always to be seen from inside it
            continue
        if (status.st_size, status.st_mtime) != (locked.bytes, locked.modified):
            yield f"{what}: {locked.path} is no longer the file that was locked"


def _facts(software: Software) -> dict[str, str]:
    own = {name: getattr(software, name) for name in ("python", "implementation", "machine", "aiftrain")}
    build = {f"torch's {name}": value for name, value in software.torch.items() if name != "version"}
    return own | build | software.packages


def _refusal(folder: RunFolder, found: list[str]) -> Iterator[str]:
    yield f"the software here is not that of {folder.env_lock}"
    yield from (f"  - {difference}" for difference in found[:_SHOWN])
    if len(found) > _SHOWN:
        yield f"  - and {len(found) - _SHOWN} more"
    yield f"Mend it, or accept what is here: python -m aiftrain env lock {folder.path}"
