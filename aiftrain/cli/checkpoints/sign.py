"""`checkpoints sign`: vouch for what a checkpoint holds. Needs run.json and the manifest, and no network."""

from __future__ import annotations

import argparse

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.signing.checkpoint import sign
from aiftrain.checkpoint.signing.keys import SigningKey
from aiftrain.cli import output
from aiftrain.cli.passphrase import passphrase_from
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder


def run(options: argparse.Namespace) -> int:
    if options.key is None:
        raise UserError("sign needs --key FILE; `python -m aiftrain keys new FILE --for signing` makes one")
    folder = RunFolder(options.place)
    entry = Catalog.of_run(folder, folder.read_spec()).find(options.step)
    key = SigningKey.read(options.key, passphrase_from(options.passphrase_file))
    signature = sign(entry, key)
    if options.json:
        output.print_json({"step": entry.step, "signature": str(signature), "key": key.public.fingerprint})
    else:
        output.console().print(f"step {entry.step:,}: {signature}, with {key.public.fingerprint[:16]}", soft_wrap=True)
    return EXIT_OK
