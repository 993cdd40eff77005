"""`keys new FILE`, `keys show FILE`: keys to open sealed checkpoints, and to sign with. Secrets stay in the file."""

from __future__ import annotations

import argparse
from pathlib import Path

from aiftrain.cli import output
from aiftrain.cli.passphrase import passphrase_from
from aiftrain.errors import EXIT_OK, UserError

_KEEP = (
    "{file} opens what is sealed for this key. Keep a copy where no cluster reaches it: without it, and without "
    "another recipient's, the checkpoints are lost"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["new", "show"], help="write a new key; print the public half of one")
    parser.add_argument("file", metavar="FILE", type=Path, help="the secret half, for its owner alone to read")
    parser.add_argument(
        "--for", dest="purpose", choices=["sealing", "signing"], default="sealing", help="what the key is for"
    )
    parser.add_argument("--passphrase", action="store_true", help="new, for signing: ask for one, to lock it with")
    parser.add_argument("--passphrase-file", type=Path, help="for signing: the passphrase is the first line of this")


def run(options: argparse.Namespace) -> int:
    if options.purpose == "signing":
        return _signing(options)
    if options.passphrase or options.passphrase_file:
        raise UserError("a passphrase goes with --for signing")
    from aiftrain.checkpoint.sealing.keys import Identities, new_identity

    new = options.action == "new"
    public = [new_identity(options.file)] if new else Identities.read(options.file).public
    _show(options, {"public_keys": public}, *public)
    if new:
        output.console(as_json=True).print(_KEEP.format(file=options.file), soft_wrap=True)
    return EXIT_OK


def _signing(options: argparse.Namespace) -> int:
    from aiftrain.checkpoint.signing.keys import SigningKey, new_signing_key

    if options.action == "new":
        public = new_signing_key(options.file, _new_passphrase(options))
    else:
        public = SigningKey.read(options.file, passphrase_from(options.passphrase_file)).public
    _show(options, {"public_key": public.pem.decode(), "fingerprint": public.fingerprint}, public.pem.decode().strip())
    return EXIT_OK


def _new_passphrase(options: argparse.Namespace) -> bytes | None:
    if not options.passphrase and not options.passphrase_file:
        return None
    passphrase = passphrase_from(options.passphrase_file)()
    if not passphrase:
        raise UserError("an empty passphrase locks nothing")
    if not options.passphrase_file and passphrase_from(None, "once more: ")() != passphrase:
        raise UserError("the two passphrases differ")
    return passphrase


def _show(options: argparse.Namespace, document: dict[str, object], *lines: str) -> None:
    if options.json:
        output.print_json({"file": str(options.file)} | document)
        return
    for line in lines:
        print(line)
