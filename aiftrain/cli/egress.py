"""`egress RUN`: whom a run's processes spoke to, when, and which rule of its policy allowed it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK
from aiftrain.run.contacts import Contact, Seen, read_contacts
from aiftrain.run.folder import RunFolder
from aiftrain.run.policy import spelled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")


def run(options: argparse.Namespace) -> int:
    folder = RunFolder(options.run)
    policy = folder.read_spec().policy
    found = read_contacts(folder.egress_files())
    kept = all(seen.contact.outcome != "forbidden" for seen in found)
    if options.json:
        contacts = [asdict(s.contact) | {"first": s.first, "last": s.last, "by": sorted(s.writers)} for s in found]
        output.print_json({"run": str(folder.path), "policy": policy.name, "kept": kept, "contacts": contacts})
    elif found:
        header = ("to", "by", "process", "first seen", "last seen", "of", "rule")
        output.show(output.table(header, map(_row, found)), output.console())
    else:
        output.console().print(f"{folder.path} has no record yet: no rank of it was ever started", soft_wrap=True)
    return EXIT_OK if kept else EXIT_FAILED


def _row(seen: Seen) -> tuple[str, ...]:
    contact = seen.contact
    return (
        _to(contact),
        contact.protocol,
        contact.process,
        _when(seen.first),
        _when(seen.last, since=seen.first),
        _writers(seen.writers),
        contact.rule or contact.outcome,
    )


def _to(contact: Contact) -> str:
    if contact.port is None:
        return contact.host or "inside"
    if contact.host and contact.address:
        return f"{spelled(contact.host, contact.port)} ({contact.address})"
    return spelled(contact.host or contact.address or "", contact.port)


def _writers(writers: set[str]) -> str:
    """One by its name, many by their number."""
    return f"{len(writers)} ranks" if len(writers) > 1 else "".join(writers)


def _when(moment: float, since: float = 0.0) -> str:
    """Without its day, where that is the day of `since`: a line is to fit a terminal."""
    day, clock = (time.strftime(form, time.localtime(moment)) for form in ("%Y-%m-%d", "%H:%M:%S"))
    return clock if day == time.strftime("%Y-%m-%d", time.localtime(since)) else f"{day} {clock}"
