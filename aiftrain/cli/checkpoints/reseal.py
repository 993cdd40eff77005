"""`checkpoints reseal PLACE --recipient age1... --identity FILE`: who opens what is sealed there is changed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from aiftrain.checkpoint.places import Away
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.sealing.reseal import reseal, seal_anew
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.cli import output
from aiftrain.cli.checkpoints.recipients import archive_at, recipients_of
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_OK, UserError


def run(options: argparse.Namespace) -> int:
    recipients, identities = recipients_of(options), Identities.given(options.identity)
    away = archive_at(options)
    found = list(_sealed(away, options.step))
    if not found:
        raise UserError(f"{away.address} has nothing that is sealed; `checkpoints seal` seals what is in the clear")
    resealed = []
    with Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        for sealed in found:
            stop.check()
            if _reseal(sealed, identities, recipients, bar, new_keys=options.new_keys):
                resealed.append(sealed.step)
    if options.json:
        output.print_json({"place": away.address, "resealed": resealed, "recipients": recipients})
    return EXIT_OK


def _sealed(away: Away, step: int | None) -> Iterator[SealedCheckpoint]:
    for each in away.archive.steps() if step is None else [step]:
        entry = away.archive.find(each)
        if isinstance(entry, SealedCheckpoint):
            yield entry


def _reseal(
    sealed: SealedCheckpoint, identities: Identities, recipients: tuple[str, ...], bar: Bar, *, new_keys: bool
) -> bool:
    """Whether something was to be done: who was interrupted may no longer have what opened those that are done."""
    step = f"step {sealed.step:,}"
    if new_keys:
        bar.begin(f"{step}, with new data keys", sum(file.seal.size for file in sealed.envelope.files))
        seal_anew(sealed, identities, recipients, bar.advance)
        bar.end()
    elif tuple(sealed.envelope.recipients) == recipients:
        bar.console.print(f"{step} is for these already", soft_wrap=True)
        return False
    else:
        reseal(sealed, identities, recipients)
    bar.console.print(f"{step} is for {', '.join(recipients)}", soft_wrap=True)
    return True
