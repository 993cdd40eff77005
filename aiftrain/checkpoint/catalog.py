"""The catalog: the checkpoints of one run in one folder, and the order of writes that keeps them whole.

    checkpoints/
      step-00000100/           a checkpoint: it has a manifest.json
        rank-00000.safetensors
        manifest.json
      step-00000200/           no manifest: a save or a removal that was interrupted, cleared away by the next save
      damaged-step-00000050/   set aside: it failed verification, and is kept for a person to look at
      void-step-00000150/      set aside: the run went back to before it; retention removes it (rollbacks.py)
      custody.jsonl            what happened to all of them, in order (custody.py)

Saving:    make the folder; ranks write and sync their shards; sync the folders; manifest.json.part, sync, rename,
           sync the folder. The rename is the commit. A crash before it leaves a folder without a manifest.
Removing:  unlink the manifest, sync the folder, remove the files. A crash in between leaves the same.
Aside:     one rename. Nothing else touches a complete checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiftrain.checkpoint.custody import NAME as CUSTODY
from aiftrain.checkpoint.custody import Custody
from aiftrain.checkpoint.durable import machine_errors, remove_tree
from aiftrain.checkpoint.manifest import MANIFEST, Manifest, read_manifest
from aiftrain.checkpoint.milestones import read_milestones
from aiftrain.checkpoint.progress import Progress, unwatched
from aiftrain.checkpoint.shards import CheckpointReader
from aiftrain.checkpoint.sources import FileSource
from aiftrain.checkpoint.verify import Fault, check_files, check_sizes
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.durable import replace_text, sync_folder
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec


class NoCheckpointError(UserError):
    """There is no complete checkpoint of a step, or none any more."""


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    folder: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step

    def reader(self) -> CheckpointReader:
        return CheckpointReader(str(self.folder), self.manifest, lambda name: FileSource(self.folder / name))

    def check_model(self, spec: RunSpec) -> None:
        """UserError where the weights are of another model than `spec` describes."""
        if self.manifest.identity.get("model") != spec.identity()["model"]:
            raise UserError(f"{self.folder} is a checkpoint of another model than run.json describes")


class Catalog:
    """The checkpoints in `folder`, which need not exist yet. One process at a time may change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.custody = Custody(folder)
        self.committed = set[str]()  # digests of the manifests that this process has written

    @classmethod
    def of_run(cls, folder: RunFolder, spec: RunSpec) -> Catalog:
        """The catalog of a run: in its folder, or in a folder of its own in storage.path, which runs may share."""
        return cls(Path(spec.storage.path) / spec.lineage if spec.storage.path else folder.checkpoints)

    def step_folder(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or is going to be."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps that have a folder, complete or not, in ascending order."""
        with machine_errors("read", self.folder):
            if not self.folder.is_dir():
                return []
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{8,}", name))

    def read(self, step: int) -> Checkpoint | None:
        """The checkpoint of `step`, None where it is not complete, DamagedError where its manifest is."""
        file = self.step_folder(step) / MANIFEST
        with machine_errors("read", file):
            try:
                manifest = read_manifest(file)
            except FileNotFoundError:
                return None
        if manifest.step != step:
            raise DamagedError(f"{file} is of step {manifest.step}")
        return Checkpoint(file.parent, manifest)

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of `step`, be it damaged."""
        return (self.step_folder(step) / MANIFEST).exists()

    def entries(self) -> list[Checkpoint]:
        """The complete checkpoints, oldest first; those with a damaged manifest are left out."""
        found = list[Checkpoint]()
        for step in self.steps():
            with suppress(DamagedError):  # `verify` and `listing` say what is wrong with it
                if (entry := self.read(step)) is not None:
                    found.append(entry)
        return found

    def latest(self, at_most: int | None = None) -> Checkpoint | None:
        """The newest complete checkpoint, or of those up to step `at_most`; None where there is none.

        DamagedError where there are checkpoints and every one is damaged: a run must not quietly begin again
        beside them.
        """
        steps = self.steps()
        entry, damaged = self._newest(step for step in reversed(steps) if at_most is None or step <= at_most)
        if entry is None and self.steps() != steps:  # another process saved, and removed what was the newest
            return self.latest(at_most)
        if entry is None and at_most is None and damaged:
            raise DamagedError(
                f"every checkpoint in {self.folder} is damaged: {', '.join(damaged)}. "
                "To begin again from step 0, move them somewhere else"
            )
        return entry

    def find(self, step: int | None = None) -> Checkpoint:
        """The checkpoint of `step`, or the newest; NoCheckpointError, naming those there are, where there is none."""
        entry = self.latest() if step is None else self.read(step)
        if entry is None:
            complete = ", ".join(str(entry.step) for entry in self.entries()) or "none"
            wanted = "" if step is None else f" of step {step}"
            raise NoCheckpointError(f"{self.folder} has no complete checkpoint{wanted}; complete steps: {complete}")
        return entry

    def find_whole(self, spec: RunSpec, step: int | None = None) -> Checkpoint:
        """What `find` gives, its files verified. DamagedError where they are not what was written."""
        entry = self.find(step)
        faults = self.verify(entry.step)
        if faults:
            raise DamagedError(f"{entry.folder} is damaged: {'; '.join(map(str, faults))}")
        entry.check_model(spec)
        return entry

    def begin(self, step: int) -> Path:
        """An empty folder for the shards of `step`; what interrupted saves and removals left is cleared away.

        UserError where `step` has a complete checkpoint: that is never overwritten.
        """
        try:
            if self.read(step) is not None:
                raise UserError(f"{self.step_folder(step)} is a complete checkpoint already; it is not overwritten")
        except DamagedError:
            self.set_aside(step)
        self.remove_incomplete()
        folder = self.step_folder(step)
        with machine_errors("create", folder):
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                sync_folder(self.folder.parent)
            folder.mkdir()
        return folder

    def commit(self, manifest: Manifest) -> Checkpoint:
        """Make the shards in the folder of `manifest.step` a checkpoint; custody tells which one it goes on from.

        MachineError where a shard is not there in full, or where a parameter has a gap; then there is no checkpoint.
        """
        folder = self.step_folder(manifest.step)
        manifest = manifest.model_copy(update={"parent": self.custody.head})
        faults = check_sizes(folder, manifest.files)
        if faults:
            raise MachineError(f"{folder} cannot become a checkpoint: {'; '.join(map(str, faults))}")
        checkpoint = Checkpoint(folder, manifest)
        checkpoint.reader().check_complete()
        with machine_errors("write", folder / MANIFEST):
            for each in (folder, self.folder):
                sync_folder(each)  # the shards' names must be durable before the manifest that counts on them
            replace_text(folder / MANIFEST, manifest.to_json())
        self.committed.add(manifest.digest)
        self.custody.add("saved", manifest.step, manifest)
        return checkpoint

    def verify(self, step: int, progress: Progress = unwatched) -> list[Fault]:
        """Read the checkpoint of `step` again, and compare with the manifest.

        NoCheckpointError where `step` has no complete checkpoint, or none any more once it was read.
        """
        try:
            entry = self.find(step)
            faults = [*self.custody_faults(entry), *check_files(entry.folder, entry.manifest.files, progress)]
            if faults:
                self.find(step)  # what its run has removed meanwhile is not damaged
        except DamagedError as error:
            return [Fault(MANIFEST, str(error))]
        return faults

    def adopt(self) -> None:
        """Have custody know all complete checkpoints that it may not know yet: at each start of a run.

        DamagedError where custody.jsonl is damaged.
        """
        self.custody.adopt(entry.manifest for entry in self.entries())

    def custody_faults(self, entry: Checkpoint) -> list[Fault]:
        """What speaks against a checkpoint in custody.jsonl: it is none that was saved here, or was put back."""
        try:
            fault = self.custody.account().fault(entry.manifest)
        except DamagedError as error:
            return [Fault(CUSTODY, str(error))]
        return [Fault(MANIFEST, fault)] if fault else []

    def set_aside(self, step: int, why: Literal["damaged", "void"] = "damaged") -> Path:
        """Rename a checkpoint, so that it no longer counts but nothing of it is lost; its new folder."""
        self.custody.add(why, step)
        folder = self.step_folder(step)
        aside = self.folder / f"{why}-{folder.name}"
        number = 1
        while aside.exists():
            number += 1
            aside = self.folder / f"{why}-{folder.name}-{number}"
        with machine_errors("rename", folder):
            folder.rename(aside)
            sync_folder(self.folder)
        return aside

    def remove_incomplete(self) -> list[int]:
        """Remove what interrupted saves and removals left; their steps. Not while a save is under way."""
        incomplete = [step for step in self.steps() if not self.has(step)]
        for step in incomplete:
            with machine_errors("remove", self.step_folder(step)):
                remove_tree(self.step_folder(step))
        return incomplete

    def retain(self, keep_last: int, keep_every: int | None = None, spared: Iterable[int] = ()) -> list[int]:
        """Remove all but the newest `keep_last` checkpoints, those at multiples of `keep_every` and the steps `spared`;
        the removed steps.

        The newest is never removed, nor is the newest that has all its files in their full size, nor a milestone. Void
        ones go once the run has saved as many steps again.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}: the newest checkpoint always stays")
        try:
            milestones = read_milestones(self.folder)
        except DamagedError:
            return []  # which ones are to stay is not known; no save fails because of it
        entries = self.entries()
        kept = {entry.step for entry in entries[-keep_last:]}
        kept.update(spared)
        kept.update(entry.step for entry in entries if entry.step in milestones)
        kept.update(entry.step for entry in entries if keep_every and entry.step % keep_every == 0)
        whole = (entry.step for entry in reversed(entries) if not check_sizes(entry.folder, entry.manifest.files))
        kept.update(step for step in [next(whole, None)] if step is not None)
        removed = [entry.step for entry in entries if entry.step not in kept]
        for step in removed:
            self._remove(self.step_folder(step))
            self.custody.add("removed", step)
        self._remove_void(max(kept, default=0))
        return removed

    def remove(self, step: int) -> None:
        """Remove what there is of `step`. The caller sees to it that nobody needs it, and that no save is under way."""
        complete = self.has(step)
        self._remove(self.step_folder(step))
        if complete:
            self.custody.add("removed", step)

    def _remove_void(self, newest: int) -> None:
        for folder in sorted(self.folder.glob("void-step-*")):
            if int(folder.name.split("-")[2]) <= newest:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        with machine_errors("remove", folder):
            (folder / MANIFEST).unlink(missing_ok=True)  # of a void one, whose removal was interrupted
            sync_folder(folder)  # no power cut may bring the manifest back once a file is gone
            remove_tree(folder)

    def _newest(self, steps: Iterable[int]) -> tuple[Checkpoint | None, list[str]]:
        """The first of `steps` that can be read; else None, and the folders that once were checkpoints.

        A folder is judged by one look alone: its checkpoint may be completed by the run between two.
        """
        damaged = list[str]()
        for step in steps:
            try:
                entry = self.read(step)
            except DamagedError:
                damaged.append(self.step_folder(step).name)
                continue
            if entry is not None:
                return entry, []
        aside = (folder.name for folder in self.folder.glob("damaged-step-*") if (folder / MANIFEST).exists())
        return None, sorted([*damaged, *aside])
