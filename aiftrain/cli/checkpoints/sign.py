"""`checkpoints sign`: vouch for what a checkpoint holds. Needs run.json and the manifest, and no network.

Of a model's folder, as `export` writes one, all files are read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.signing.checkpoint import sign, sign_model
from aiftrain.checkpoint.signing.keys import PublicKey, SigningKey
from aiftrain.cli import output
from aiftrain.cli.passphrase import passphrase_from
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.folder import RunFolder


def run(options: argparse.Namespace) -> int:
    if options.key is None:
        raise UserError("sign needs --key FILE; `python -m aiftrain keys new FILE --for signing` makes one")
    step, signature, key = _sign_model(options) if _is_model(Path(options.place)) else _sign_checkpoint(options)
    if options.json:
        output.print_json({"step": step, "signature": str(signature), "key": key.fingerprint})
    else:
        signed = "the model" if step is None else f"step {step:,}"
        output.console().print(f"{signed}: {signature}, with {key.fingerprint[:16]}", soft_wrap=True)
    return EXIT_OK


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "run.json").exists()


def _sign_model(options: argparse.Namespace) -> tuple[None, Path, PublicKey]:
    if options.step is not None:
        raise UserError(f"{options.place} is a model's folder, which has no steps")
    key = _key(options)
    return None, sign_model(Path(options.place).resolve(), key), key.public


def _sign_checkpoint(options: argparse.Namespace) -> tuple[int, Path, PublicKey]:
    folder = RunFolder(options.place)
    entry = Catalog.of_run(folder, folder.read_spec()).find(options.step)
    key = _key(options)
    return entry.step, sign(entry, key), key.public


def _key(options: argparse.Namespace) -> SigningKey:
    return SigningKey.read(options.key, passphrase_from(options.passphrase_file))
