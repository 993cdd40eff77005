"""`checkpoints verify`: whether what a run has saved is what was written."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.listing import verify
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK
from aiftrain.run.folder import RunFolder


def run(folder: RunFolder, options: argparse.Namespace) -> int:
    catalog = Catalog.of_run(folder, folder.read_spec())
    signer = PublicKey.read(options.public_key) if options.public_key else None
    found = verify(catalog, options.step, signer)
    damaged = any(each.faults for each in found)
    if options.json:
        checkpoints = [asdict(each) for each in found]
        document = {"folder": str(catalog.folder), "intact": not damaged, "checkpoints": checkpoints}
        output.print_json(document | {"signed_with": signer.fingerprint if signer else None})
        return EXIT_FAILED if damaged else EXIT_OK
    console = output.console()
    whole = f"signed with {signer.fingerprint[:16]}, and intact" if signer else "intact"
    for each in found:
        console.print(f"step {each.step:,}: {'damaged' if each.faults else whole} ({output.size(each.size)})")
        for fault in each.faults:
            console.print(f"  {fault}", markup=False, soft_wrap=True)
    return EXIT_FAILED if damaged else EXIT_OK
