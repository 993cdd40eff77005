"""`checkpoints export`: a Hugging Face model of what a run has saved."""

from __future__ import annotations

import argparse

from aiftrain.checkpoint.export import export
from aiftrain.cli import output
from aiftrain.errors import EXIT_OK
from aiftrain.run.folder import RunFolder


def run(folder: RunFolder, options: argparse.Namespace) -> int:
    out = options.out or folder.path / "export"
    written = export(folder, out, options.step, shard_gb=options.shard_gb, averaged=options.ema)
    if options.json:
        output.print_json({"folder": str(written)})
    else:
        output.console().print(f"{written}: load it with AutoModelForCausalLM.from_pretrained", soft_wrap=True)
    return EXIT_OK
