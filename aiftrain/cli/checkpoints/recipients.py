"""Whom `checkpoints seal` and `reseal` seal for, and who opens what is sealed."""

from __future__ import annotations

import argparse
import os

from aiftrain.checkpoint.places import Away
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import one_run_at
from aiftrain.errors import UserError
from aiftrain.run.seal import SealSpec, check_recipient


def recipients_of(options: argparse.Namespace) -> tuple[str, ...]:
    """UserError where none is given, or one is no age public key. One alone is warned of."""
    recipients = tuple(options.recipient or ())
    if not recipients:
        raise UserError(f"{options.action} needs --recipient age1..., once for each key that is to open it")
    for recipient in recipients:
        try:
            check_recipient(recipient)
        except ValueError as error:
            raise UserError(f"--recipient: {error}") from None
    if len(set(recipients)) < len(recipients):
        raise UserError("a recipient is there twice")
    if warning := SealSpec(where="archives", recipients=recipients).warning:
        output.console(as_json=True).print(warning, soft_wrap=True)
    return recipients


def identities_of(options: argparse.Namespace) -> Identities | None:
    """Those of --identity, or of the environment; None where neither names a file."""
    return Identities.given(options.identity) if options.identity or os.environ.get(IDENTITY_FILE) else None


def archive_at(options: argparse.Namespace) -> Away:
    """The run at an archive. UserError where the place is a run folder."""
    place = one_run_at(options)
    if not isinstance(place, Away):
        raise UserError(
            f"{options.place} is a run folder, where checkpoints lie as ranks read them: {options.action} takes an "
            "archive. What leaves home is sealed with storage.seal.where=archives"
        )
    return place
