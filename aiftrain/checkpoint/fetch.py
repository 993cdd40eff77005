"""One checkpoint from an archive to home: filled beside the checkpoints, and a rename makes it one of them.

checkpoints/
  fetching-step-00000100/    on its way; one that was interrupted goes on where it was
  damaged-step-00000100/     set aside before: its files that are what the manifest says are not fetched again
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from aiftrain.checkpoint.archive import Contents, signature_of
from aiftrain.checkpoint.archived_custody import custody_faults, read_custody
from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.checkpoint.durable import machine_errors, remove_tree
from aiftrain.checkpoint.manifest import MANIFEST, FileRecord
from aiftrain.checkpoint.pipeline import ahead, digesting
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.several import several
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.verify import check_files
from aiftrain.checkpoint.weights_only import refuse_to_resume
from aiftrain.errors import DamagedError
from aiftrain.run.durable import replace_bytes, replace_text, sync_folder

_PREFIX = "fetching-"


class Fetch:
    """Brings `entry` to `catalog`. One process begins and finishes; any number may share the files between them."""

    def __init__(self, entry: Contents, catalog: Catalog) -> None:
        self.entry = entry
        self.catalog = catalog
        self.folder = catalog.folder / f"{_PREFIX}{catalog.step_folder(entry.step).name}"

    def begin(self) -> str:
        """Make room: what was left of fetching other steps goes. MachineError where this one does not fit.

        UserError where it holds weights only; DamagedError where custody at home, or there, knows another checkpoint of
        this step: an older one was put back there. A new home goes on from the archive's custody; where that is damaged
        it is not heeded, and what is returned says so.
        """
        manifest = self.entry.manifest
        refuse_to_resume(manifest, self.entry.address)
        if refusal := self.catalog.custody.account().refuses(manifest.step, manifest.digest):
            raise DamagedError(
                f"{self.entry.store.address} has another checkpoint of this step than home had: {refusal}"
            )
        with machine_errors("create", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.catalog.folder)
        forget_others(self.catalog, self.folder)
        return self._heed_custody()

    def files(self, records: Iterable[FileRecord], progress: Progress = unwatched) -> Iterator[None]:
        """Bring some of the files, verified; pauses after every block. DamagedError where the archive's are damaged."""
        for record in records:
            if not self._is_here(record) and not self._is_aside(record):
                yield from self._download(record, progress)
            else:
                progress(record.size)
            yield

    def finish(self) -> Checkpoint:
        """Make it a checkpoint of home: with the manifest in it, one rename. All files have been brought."""
        manifest = self.entry.manifest
        Checkpoint(self.folder, manifest).reader().check_complete()
        with machine_errors("write", self.folder / MANIFEST):
            replace_text(self.folder / MANIFEST, manifest.to_json())
        self._bring_signature()
        target = self.catalog.begin(self.entry.step)
        self.catalog.custody.add("fetched", manifest.step, manifest)
        with machine_errors("rename", self.folder):
            self.folder.rename(target)  # over the empty folder that `begin` has made
            sync_folder(self.catalog.folder)
        return Checkpoint(target, manifest)

    def _heed_custody(self) -> str:
        store, manifest = self.entry.store, self.entry.manifest
        lineage = self.entry.place.partition("/")[0]
        try:
            lines = read_custody(store, lineage)
        except DamagedError as error:
            return str(error)
        if faults := custody_faults(store, lineage, manifest.step, manifest.digest):
            raise DamagedError(f"{self.entry.address}: {faults[0]}")
        self.catalog.adopt()  # what is here is not to be forgotten for what is said there
        self.catalog.custody.go_on_from(lines)
        return ""

    def _bring_signature(self) -> None:
        """One that is damaged stays away: `checkpoints verify` misses it, and a run does not need it."""
        with contextlib.suppress(DamagedError), machine_errors("write", self.folder / SIGNATURE):
            if signature := signature_of(self.entry):
                replace_bytes(self.folder / SIGNATURE, signature)

    def _is_here(self, record: FileRecord) -> bool:
        return not check_files(self.folder, [record])

    def _is_aside(self, record: FileRecord) -> bool:
        """Whether a checkpoint that was set aside had the file whole: it is here then, by another name of it."""
        name = self.catalog.step_folder(self.entry.step).name
        for folder in self.catalog.folder.glob(f"damaged-{name}*"):
            if not check_files(folder, [record]):
                with contextlib.suppress(OSError):  # no hard links on this file system
                    (self.folder / record.name).unlink(missing_ok=True)
                    (self.folder / record.name).hardlink_to(folder / record.name)
                    return True
        return False

    def _download(self, record: FileRecord, progress: Progress) -> Iterator[None]:
        file, digest = self.folder / record.name, hashlib.sha256()
        with machine_errors("write", file), _new(file).open("wb") as stream:
            for block in digesting(ahead(self.entry.blocks(record)), digest):
                stream.write(block)
                progress(len(block))
                yield
            stream.flush()
            os.fsync(stream.fileno())
        if digest.hexdigest() != record.sha256:
            where = f"{self.entry.store.address}/{self.entry.object(record)}"
            raise DamagedError(f"{where} is damaged: its SHA-256 is {digest.hexdigest()}, not {record.sha256}")


def fetch(entry: Contents, catalog: Catalog, progress: Progress = unwatched) -> Checkpoint:
    """All of it, in one process."""
    fetching = Fetch(entry, catalog)
    if damage := fetching.begin():
        raise DamagedError(f"{damage}. Remove it there to go without")
    several(lambda record: deque(fetching.files([record], progress), 0), entry.manifest.files)
    return fetching.finish()


def forget_others(catalog: Catalog, kept: Path | None = None) -> None:
    """Remove what interrupted fetches left, but `kept`."""
    for folder in catalog.folder.glob(f"{_PREFIX}step-*"):
        if folder != kept:
            with machine_errors("remove", folder):
                remove_tree(folder)


def _new(file: Path) -> Path:
    """The path of a file that is going to be written: not into one that has another name too."""
    file.unlink(missing_ok=True)
    return file
