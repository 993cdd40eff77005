"""custody.jsonl beside the checkpoints: what happened to them, in order, each line bound to the one before it.

    {"event":"saved","step":200,"manifest":"<digest>","parent":"<digest>",...,"previous":"<SHA-256 of the line above>",
     "digest":"<SHA-256 of this line without it>"}

There is neither a time nor the name of a node in it: archives have it in the clear, sealed ones too, so that a manifest
that was put back is seen without a key. When and where an attempt was at work stands in its logs.

A line is only ever added. Saving: first the manifest, then its line; where a crash comes between, the next start adds
the line (`adopt`). Setting aside: first the line, then the rename; a crash between them has it done again. Removal:
the line comes last, for on a full disk no line can be written before something is gone.

It shows a manifest put back from an earlier time, a line changed or taken out, and newer checkpoints that vanished.
Who may write here may also cut off its end together with the newest checkpoints, or write all of it anew: copies in
other places (archives) and signatures are against that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from aiftrain.checkpoint.digested import first_fault
from aiftrain.checkpoint.durable import machine_errors
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.errors import DamagedError
from aiftrain.run.base import Strict
from aiftrain.run.durable import replace_bytes, sync_folder

NAME = "custody.jsonl"
FIRST = "0" * 64  # what the first line has for the digest of the one before
_TAIL = 1 << 16  # bytes: more than a line takes

What = Literal["saved", "adopted", "fetched", "resumed", "rollback", "removed", "damaged", "void"]
_MOVE_THE_HEAD = ("saved", "adopted", "resumed", "rollback")


class Line(Strict):
    """One event. `manifest`: the digest of the checkpoint's manifest; `parent`: that of the one it goes on from.

    `attempt`: the start of the run that saved the checkpoint, resumed from it or went back to it.

    "adopted": a checkpoint that lay there already; "fetched": one that came from an archive, where another machine may
    have put it. "resumed" at step 0 is a run that began anew.
    """

    event: What
    step: int
    manifest: str | None = None
    parent: str | None = None
    attempt: int | None = None
    previous: str
    digest: str = ""

    def text(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    def with_digest(self) -> Line:
        """The same, its digest filled in: the last line has no other one after it that would tell of a change."""
        content = self.model_dump_json(exclude_none=True, exclude={"digest"})
        return self.model_copy(update={"digest": _digest(content.encode())})


class Account:
    """What the lines together say. `digests` has the manifest last saved of each step, `head` the one to go on from."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.digests: dict[int, str] = {}
        self.head: str | None = None
        self._known: set[str] = set()
        self._void: set[int] = set()
        self._there: set[int] = set()
        for line in lines:
            self._take(line)

    def fault(self, manifest: Manifest) -> str | None:
        """Why a checkpoint cannot be what was saved as its step; None where it can."""
        known, digest = self.digests.get(manifest.step), manifest.digest
        if digest == known:
            return self.voids(manifest.step, digest)
        if not self.digests or (digest not in self._known and manifest.parent == self.head):
            return None  # from before there was custody; or of a save that was killed before its line was written
        if known is None:
            return f"{NAME} knows of no checkpoint of this step"
        return f"{NAME} has the manifest {known[:16]} for this step, and this one is {digest[:16]}: it was put back"

    def voids(self, step: int, digest: str) -> str | None:
        """What to say where the run went back from the checkpoint whose manifest has this digest."""
        if step in self._void and digest == self.digests.get(step):
            return f"{NAME} has it as void: the run went back to before it"
        return None

    def refuses(self, step: int, digest: str) -> str | None:
        """Why a checkpoint from elsewhere is not to be taken for what was saved here as its step; None where it may."""
        known = self.digests.get(step)
        if known in (None, digest) or step in self._void:
            return None
        return f"{NAME} has the manifest {known} for step {step}, and not {digest}"

    def knows(self, manifest: Manifest) -> bool:
        return manifest.digest in self._known

    def vanished(self, step: int) -> list[int]:
        """Steps after `step` whose checkpoints should be there."""
        return sorted(each for each in self._there if each > step)

    def _take(self, line: Line) -> None:
        if line.event in ("saved", "adopted", "fetched") and line.manifest:
            self.digests[line.step] = line.manifest
            self._known.add(line.manifest)
            self._there.add(line.step)
            self._void.discard(line.step)
        if line.event in ("removed", "damaged", "void"):
            self._there.discard(line.step)
        if line.event == "void":
            self._void.add(line.step)
        if line.event == "resumed":
            self._there = {step for step in self._there if step <= line.step}
        if line.event in _MOVE_THE_HEAD:
            self.head = line.manifest


class Custody:
    """The custody.jsonl in `folder`. One process at a time may write."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME
        self._head: str | None = None

    @property
    def head(self) -> str | None:
        """The digest of the manifest that the next one goes on from; None before the first."""
        if self._head is None:
            self._head = self.account().head
        return self._head

    def lines(self) -> list[Line]:
        """All lines; none where there is no file. DamagedError where one is not what was written."""
        return list(read_lines(self.text(), str(self.file)))

    def checked_text(self) -> bytes:
        """All complete lines, as they are. DamagedError where one is not what was written."""
        text = self.text()
        for _ in read_lines(text, str(self.file)):
            pass
        return text

    def text(self) -> bytes:
        """All complete lines, as they are."""
        with machine_errors("read", self.file):
            text = self.file.read_bytes() if self.file.exists() else b""
        return text[: text.rfind(b"\n") + 1]  # what follows is one that was cut

    def go_on_from(self, text: bytes) -> None:
        """Take over the lines of the same run on another machine, where they go on from those that are here."""
        ours = self.text()
        if len(text) > len(ours) and text.startswith(ours):
            with machine_errors("write", self.file):
                replace_bytes(self.file, text)
            self._head = None

    def account(self) -> Account:
        """DamagedError where a line is not what was written."""
        return Account(read_lines(self.text(), str(self.file)))

    def add(self, event: What, step: int, manifest: Manifest | None = None, attempt: int | None = None) -> None:
        """Add a line, synced to the disk. What a crash left of an unfinished one is cut off."""
        with machine_errors("write", self.file), self.file.open("ab+") as stream:
            complete, last = _last_line(stream.fileno())
            stream.truncate(complete)
            line = Line(
                event=event,
                step=step,
                manifest=manifest and manifest.digest,
                parent=manifest and manifest.parent,
                attempt=manifest.attempt if manifest and attempt is None else attempt,
                previous=_digest(last) if last else FIRST,
            ).with_digest()
            stream.write(line.text() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            if not last:
                sync_folder(self.file.parent)
        if event in _MOVE_THE_HEAD:
            self._head = line.manifest

    def adopt(self, manifests: Iterable[Manifest]) -> None:
        """Add the lines that are missing of checkpoints, oldest first.

        Of all, where nothing is known yet; else of the one whose save was killed before its line was written.
        """
        account = self.account()
        begins = not account.digests
        for manifest in manifests:
            if not account.knows(manifest) and (begins or account.fault(manifest) is None):
                self.add("adopted" if begins else "saved", manifest.step, manifest)

    def set_aside(self) -> Path:
        """Rename a file that is damaged, so that a new one begins."""
        number = 1
        while (aside := self.file.with_name(f"damaged-{number}-{NAME}")).exists():
            number += 1
        with machine_errors("rename", self.file):
            self.file.rename(aside)
            sync_folder(self.file.parent)
        return aside


def read_lines(content: bytes, where: str) -> Iterator[Line]:
    """The lines in `content`, which was found at `where`. DamagedError where one is not what was written."""
    previous = FIRST
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = Line.model_validate_json(text)
        except ValidationError as error:
            raise DamagedError(f"{where} is damaged in line {number}: {first_fault(error)}") from error
        if line.with_digest().text() != text:
            raise DamagedError(f"{where} is damaged: line {number} is not what was written")
        if line.previous != previous:
            raise DamagedError(f"{where} is damaged: line {number} does not go on from the one before it")
        previous = _digest(text)
        yield line


def _last_line(descriptor: int) -> tuple[int, bytes]:
    """Where the last complete line ends, and its text."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    whole, _, rest = tail.rpartition(b"\n")
    return size - len(rest), whole.rpartition(b"\n")[2]


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
