"""`checkpoints seal PLACE --recipient age1...`: what an archive has in the clear is sealed in its place."""

from __future__ import annotations

import argparse

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.progress import reading_back
from aiftrain.checkpoint.sealing.in_place import seal_in_place
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.opened import open_checkpoint
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.verify import Fault
from aiftrain.cli import output
from aiftrain.cli.checkpoints.recipients import archive_at, identities_of, recipients_of
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_OK


def run(options: argparse.Namespace) -> int:
    recipients, identities = recipients_of(options), identities_of(options)
    away = archive_at(options)
    archive = Archive(away.archive.store, away.lineage, recipients)
    steps = archive.steps() if options.step is None else [options.step]
    with Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        sealed = [step for step in steps if _seal(archive, step, identities, bar)]
    if options.json:
        output.print_json({"place": away.address, "sealed": sealed, "recipients": recipients})
    elif not sealed:
        output.console().print(f"{away.address} has nothing in the clear", soft_wrap=True)
    return EXIT_OK


def _seal(archive: Archive, step: int, identities: Identities | None, bar: Bar) -> bool:
    """Whether there was something to seal."""
    plain = archive.read_plain(step)
    bar.begin(f"step {step:,}, sealed", plain.manifest.size if plain else 0)
    look = reading_back(bar.advance)

    def verify(sealed: SealedCheckpoint) -> list[Fault]:
        return open_checkpoint(sealed, identities).verify(look) if identities else sealed.verify(look)

    done = seal_in_place(archive, step, verify, bar.advance)
    bar.end()
    if done:
        how = "opened and compared" if identities else "read back; an identity would open it too"
        bar.console.print(f"step {step:,} is sealed ({how}), and its plain copy is removed", soft_wrap=True)
    return done
