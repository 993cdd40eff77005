"""`ship`: carry a run's checkpoints to its archives, from any machine that sees both; again after whatever happened."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from aiftrain.cli import output
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_FAILED, EXIT_OK, UserError
from aiftrain.run import door, residency
from aiftrain.run.contacts import Record
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.lock import PATIENCE

if TYPE_CHECKING:
    from aiftrain.checkpoint.catalog import Catalog, Checkpoint
    from aiftrain.checkpoint.ledger import Arrival
    from aiftrain.checkpoint.ship import Failure, Shipper

_TRIES = 5  # that fail one after the other; with --follow any number
_LONGEST_PAUSE = 60.0  # seconds between two of them; the first is 1, and each twice the one before
_LOOKS = 2.0  # seconds between two looks for a new checkpoint
_NICENESS = 10  # of a shipper beside ranks
_HANDOVER = 600.0  # seconds in which the shipper of ranks before may come to its end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    parser.add_argument("--follow", action="store_true", help="go on with what is saved later, until the run's end")
    # For rank 0, which holds the other end of standard input: that it ends is the end of the ranks, however it came.
    parser.add_argument("--with-ranks", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.catalog import Catalog
    from aiftrain.checkpoint.ship import Shipper, destinations, shipping_lock

    folder = RunFolder(options.run)
    spec = folder.read_spec()
    if not spec.storage.archives:
        raise UserError(f"{folder.path} names no archive to ship to: start the run again with storage.archives=[PLACE]")
    residency.check(spec, folder.path)
    catalog, record = Catalog.of_run(folder, spec), Record(folder.ship_egress)
    with (
        door.opened(spec.policy, residency.archive_hosts(spec.storage.archives), record),
        shipping_lock(catalog, _HANDOVER if options.with_ranks else PATIENCE),
        Stop() as stop,
        Bar(output.console(as_json=options.json), stop) as bar,
    ):
        told = _Told(bar)
        shipper = Shipper(catalog, destinations(spec), told)
        patient = options.follow and not options.with_ranks
        failures = _ship(shipper, stop, _end(folder, options, stop), patient=patient)
    _tell(folder, catalog, told, failures, options)
    return EXIT_FAILED if failures else EXIT_OK


def _ship(shipper: Shipper, stop: Stop, ended: Callable[[], bool], *, patient: bool) -> list[Failure]:
    """Rounds until all is there after the end; what failed in the last of them. Who is `patient` never gives up."""
    in_vain = 0
    while True:
        last = ended()  # asked before the round: what was saved before the end is in it
        failures = shipper.round()
        if all(failure.lasting for failure in failures):
            if last:
                return failures
            in_vain = 0
            stop.wait(_LOOKS)
            continue
        in_vain += 1
        if last and in_vain >= _TRIES and not patient:
            return failures
        stop.wait(min(2.0 ** (in_vain - 1), _LONGEST_PAUSE))


def _end(folder: RunFolder, options: argparse.Namespace, stop: Stop) -> Callable[[], bool]:
    """Tells whether nothing will be saved any more, or nothing that this process is to wait for."""
    if options.with_ranks:
        os.nice(_NICENESS)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a scheduler's word to the ranks, which it says to all
        return _end_of_input(stop)
    if options.follow:
        return lambda: _has_ended(folder)
    return lambda: True


def _end_of_input(stop: Stop) -> Callable[[], bool]:
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()
        stop.wake()

    threading.Thread(target=listen, daemon=True).start()
    return ended.is_set


def _has_ended(folder: RunFolder) -> bool:
    """Whether the run came to its last step in its newest start."""
    events = [event for event in read_lines(folder.events) if event.get("event") in ("start", "end")]
    return bool(events) and events[-1].get("event") == "end" and events[-1].get("exit_code") == EXIT_OK


class _Told:
    """Tells people what the shipper does."""

    def __init__(self, bar: Bar) -> None:
        self.arrivals: list[Arrival] = []
        self.signed_later: list[Arrival] = []
        self._bar = bar
        self._lasting: set[Failure] = set()
        self.progress = bar.advance

    def begins(self, checkpoint: Checkpoint, archive: str) -> None:
        self._bar.begin(f"step {checkpoint.step:,} to {archive}", checkpoint.manifest.size)

    def arrived(self, arrival: Arrival) -> None:
        self._bar.end()
        self.arrivals.append(arrival)
        self._print(f"step {arrival.step:,} is at {arrival.archive} ({output.size(arrival.size)}, confirmed)")

    def signed(self, arrival: Arrival) -> None:
        self.signed_later.append(arrival)
        self._print(f"the signature of step {arrival.step:,} is at {arrival.archive}")

    def failed(self, failure: Failure) -> None:
        self._bar.end()
        if failure in self._lasting:
            return  # a shipper that follows a run meets it in every round
        if failure.lasting:
            self._lasting.add(failure)
        what = "" if failure.step is None else f"step {failure.step:,}, "
        self._print(f"{what}{failure.archive}: {failure.message}")

    def _print(self, line: str) -> None:
        self._bar.console.print(Text(line), soft_wrap=True)


def _tell(
    folder: RunFolder, catalog: Catalog, told: _Told, failures: list[Failure], options: argparse.Namespace
) -> None:
    if options.json:
        output.print_json(
            {
                "run": str(folder.path),
                "home": str(catalog.folder),
                "complete": not failures,
                "arrived": [arrival.model_dump(mode="json") for arrival in told.arrivals],
                "signed": [arrival.model_dump(mode="json") for arrival in told.signed_later],
                "failures": [asdict(failure) for failure in failures],
            }
        )
    elif failures:
        print("aiftrain: not all is there; the same command goes on", file=sys.stderr)
    elif not told.arrivals and not told.signed_later:
        output.console().print("nothing to ship: every archive has all complete checkpoints", soft_wrap=True)
