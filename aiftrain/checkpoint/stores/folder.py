"""A folder as a store: on a disk, or on a file system that many machines share. Objects are the files below it.

Writing: a part file, locked while its writer lives, synced; then its name, by a rename or, for a new object, by a hard
link, which of two writers one gets. A part that nobody holds a lock on is a dead writer's: the next one removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from aiftrain.checkpoint.durable import machine_errors, reading
from aiftrain.checkpoint.stores.base import AlreadyThereError, Entry, Octets
from aiftrain.errors import DamagedError, MachineError
from aiftrain.run.durable import sync_folder

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_BLOCK = 8 << 20
_DAY = 24 * 3600.0  # seconds: clocks of machines differ by less
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}  # Lustre mounted without flock, and others


class FolderStore:
    """A Store in `folder`, which must exist: one that is not mounted must not be taken for an empty one."""

    confirms = False  # the disk has not been read

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._check_mounted()

    @property
    def address(self) -> str:
        return str(self.folder)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for name in sorted(self._names(prefix)):
            entry = self.entry(name)
            if entry is not None:  # else it was removed meanwhile
                yield entry

    def entry(self, name: str) -> Entry | None:
        file = self._file(name)
        with machine_errors("read", file):
            try:
                status = file.stat()
            except (FileNotFoundError, NotADirectoryError):
                self._check_mounted()
                return None
        return Entry(name, status.st_size, status.st_mtime)

    def read(self, name: str, start: int, target: memoryview) -> None:
        with self._reading(name) as stream:
            stream.seek(start)
            while target:
                count = stream.readinto(target)
                if not count:
                    raise DamagedError(f"{self._file(name)} is damaged: it ends {len(target)} bytes too early")
                target = target[count:]

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._reading(name) as stream:
            while block := stream.read(_BLOCK):
                yield block

    def write(self, name: str, blocks: Iterable[Octets], size: int, *, new: bool = False) -> None:
        file = self._file(name)
        self._check_mounted()
        with machine_errors("write", file):
            _make_folder(file.parent)
            _remove_abandoned(file)
            with _part_of(file) as (part, stream):
                written = _fill(stream, blocks)
                if written != size:
                    raise ValueError(f"{name}: {size} bytes were announced, {written} came")
                _name(part, file, new=new)
            sync_folder(file.parent)

    def remove(self, name: str) -> None:
        file = self._file(name)
        with machine_errors("remove", file):
            if not file.parent.is_dir():
                self._check_mounted()
                return
            _remove_abandoned(file)
            file.unlink(missing_ok=True)
            sync_folder(file.parent)
            self._remove_empty(file.parent)

    def clear_unfinished(self, prefix: str = "", *, older_than: float = 0.0) -> int:
        below = self.folder / prefix.rpartition("/")[0]
        with machine_errors("remove", below):
            parts = [part for part in below.rglob(".*.part") if _named(part, self.folder).startswith(prefix)]
            return sum(map(_remove_part, parts))

    def check_room(self, size: int, files: int) -> None:
        with machine_errors("read", self.folder):
            status = os.statvfs(self.folder)
        free = status.f_bavail * status.f_frsize
        if size > free:
            raise MachineError(f"{self.folder} has room for {free:,} bytes, and {size:,} are to go there")
        if status.f_files and files > status.f_favail:  # some file systems count no files
            raise MachineError(f"{self.folder} has room for {status.f_favail:,} files, and {files:,} are to go there")

    def check_private(self) -> None:
        """Nothing is asked: who may read a folder of a site is known to those who set its modes, and they see them."""

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an object")
        return self.folder / name

    def _names(self, prefix: str) -> Iterator[str]:
        below = self.folder / prefix.rpartition("/")[0]
        with machine_errors("read", below):
            for folder, _, files in os.walk(below, onerror=self._pass_over_removed):
                names = (os.path.relpath(Path(folder, file), self.folder) for file in files if file[0] != ".")
                yield from (name for name in names if name.startswith(prefix))

    def _pass_over_removed(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error
        self._check_mounted()

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[FileIO]:
        file = self._file(name)
        try:
            with reading(file), file.open("rb", buffering=0) as stream:
                yield stream
        except DamagedError:
            self._check_mounted()  # where all is gone, nothing is damaged
            raise

    def _remove_empty(self, folder: Path) -> None:
        """Folders are no objects: who leaves the last object of one leaves nothing."""
        while folder != self.folder:
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process was first
                return
            folder = folder.parent

    def _check_mounted(self) -> None:
        if not self.folder.is_dir():
            raise MachineError(
                f"there is no folder {self.folder}: mount what it is on, or make it: mkdir {self.folder}"
            )


def _make_folder(folder: Path) -> None:
    """With those above it, all durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextlib.contextmanager
def _part_of(file: Path) -> Iterator[tuple[Path, FileIO]]:
    """Where to write what shall become `file`: locked, and gone at the end."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb", buffering=0) as stream:
            _lock(stream)
            yield part, stream
    finally:
        part.unlink(missing_ok=True)


def _fill(stream: FileIO, blocks: Iterable[Octets]) -> int:
    """Write all, durably; the bytes written. They leave the cache: who reads them back reads the disk.

    Linux begins to write back what it is told will not be needed: at the end there is then little left to sync.
    """
    begun = 0
    for block in blocks:
        rest = memoryview(block).cast("B")
        while rest:
            rest = rest[stream.write(rest) :]
        if stream.tell() - begun >= _BLOCK:
            os.posix_fadvise(stream.fileno(), begun, stream.tell() - begun, os.POSIX_FADV_DONTNEED)
            begun = stream.tell()
    os.fsync(stream.fileno())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return stream.tell()


def _name(part: Path, file: Path, *, new: bool) -> None:
    if not new:
        part.replace(file)
        return
    try:
        file.hardlink_to(part)
    except FileExistsError:
        if part.stat().st_nlink == 1:  # 2: NFS has done it, lost its answer, and refused the second try
            raise AlreadyThereError(f"{file} is there already: another process has written it") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise MachineError(
            f"cannot write {file}: its file system has no hard links, so two writers could both win; choose another one"
        ) from error


def _remove_abandoned(file: Path) -> None:
    for part in file.parent.glob(f".{file.name}.*.part"):
        _remove_part(part)


def _remove_part(part: Path) -> bool:
    """Whether its writer is dead, and it is gone now."""
    with contextlib.suppress(FileNotFoundError):
        # A new one that is empty may be locked in a moment. NFS locks only what is open for writing.
        status = part.stat()
        if status.st_size or status.st_mtime < time.time() - _DAY:
            with part.open("rb+", buffering=0) as stream:
                if _lock(stream):
                    part.unlink()
                    return True
    return False


def _named(part: Path, folder: Path) -> str:
    """The object that a part was to become: .NAME.12345678.part"""
    return str(part.with_name(part.name[1:].rsplit(".", 2)[0]).relative_to(folder))


def _lock(stream: FileIO) -> bool:
    """Whether the lock on an open file is this process's now: nobody else holds it, and there are locks."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES) or error.errno in _NO_LOCKS:
            return False
        raise
    return True
