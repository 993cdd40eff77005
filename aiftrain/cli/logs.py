"""`logs`: what a rank of a run prints, up to now or as long as the run goes on."""

from __future__ import annotations

import argparse
import codecs
import sys
import time
from pathlib import Path

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, MachineError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec

_LOOK_EVERY = 0.5  # seconds between looks at the log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", type=int, default=0, help="whose (default: 0)")
    parser.add_argument("--attempt", type=int, help="of which start of the run (default: the newest)")


def run(options: argparse.Namespace) -> int:
    folder = RunFolder(options.run)
    spec = folder.read_spec()
    if options.json:
        if options.follow:
            raise UserError("--json gives one document: it does not go with -f")
        file = _log(folder, options.rank, options.attempt)
        text = _Reader(file).new()
        output.print_json({"run": str(folder.path), "file": str(file), "lines": text.splitlines()})
    elif options.follow:
        _Follower(folder, spec, options.rank, options.attempt).follow()
    else:
        sys.stdout.write(_Reader(_log(folder, options.rank, options.attempt)).new())
    return EXIT_OK


def _path(folder: RunFolder, rank: int, attempt: int | None) -> Path:
    return folder.attempt_logs(attempt or folder.last_attempt()) / f"rank-{rank:05d}.log"


def _log(folder: RunFolder, rank: int, attempt: int | None) -> Path:
    """The log. UserError where there is none, with what there is."""
    file = _path(folder, rank, attempt)
    if file.is_file():
        return file
    if not folder.last_attempt():
        raise UserError(f"{folder.path} has no log yet: no rank of it was ever started")
    if not file.parent.is_dir():
        raise UserError(f"there is no attempt {attempt}: the newest is {folder.last_attempt()}")
    ranks = len(list(file.parent.glob("rank-*.log")))
    others = [str(log) for log in (file.parent / "launcher.log", *sorted(folder.path.glob("slurm-*.out"))[-1:])]
    there = [other for other in others if Path(other).is_file()]
    raise UserError(f"{file} is not there: {ranks} ranks have one. {'See ' if there else ''}{' and '.join(there)}")


class _Reader:
    """A growing log, in text; bytes that are no UTF-8 are shown as such."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def new(self) -> str:
        """What was written since the last call; nothing where the file is not there yet."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._offset)
                text = stream.read()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise MachineError(f"cannot read {self.file}: {error.strerror}") from error
        self._offset += len(text)
        return self._decoder.decode(text)


class _Follower:
    """Prints a rank's log as it grows, of one attempt or of one after the other."""

    def __init__(self, folder: RunFolder, spec: RunSpec, rank: int, attempt: int | None) -> None:
        from aiftrain.launch.status import Liveness

        self._folder, self._rank, self._attempt = folder, rank, attempt
        self._reader = _Reader(_path(folder, rank, attempt))
        self._alive = Liveness(folder, spec)

    def follow(self) -> None:
        """Until the run neither trains nor waits in a queue; where one attempt was asked for, until a newer one."""
        while not self._over():
            self._print()
            self._go_to_newest()
            time.sleep(_LOOK_EVERY)
        self._print()
        self._folder.read_spec()  # says so where the folder is gone meanwhile
        _log(self._folder, self._rank, self._attempt)  # says what is wrong where nothing was ever there

    def _print(self) -> None:
        sys.stdout.write(self._reader.new())
        sys.stdout.flush()

    def _go_to_newest(self) -> None:
        newest = _path(self._folder, self._rank, self._attempt)
        if newest != self._reader.file and newest.is_file():
            self._print()
            self._reader = _Reader(newest)

    def _over(self) -> bool:
        surpassed = self._attempt is not None and self._attempt < self._folder.last_attempt()
        return surpassed or not self._alive()
