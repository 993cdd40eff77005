"""`checkpoints export`: a Hugging Face model of what a run has saved, straight from wherever it is."""

from __future__ import annotations

import argparse
from dataclasses import replace

from aiftrain.checkpoint.described import model_at
from aiftrain.checkpoint.export import export
from aiftrain.checkpoint.places import Home
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import one_run_at
from aiftrain.cli.checkpoints.signers import demanded
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_OK, UserError


def run(options: argparse.Namespace) -> int:
    place = one_run_at(options)
    out = options.out or (place.folder.path / "export" if isinstance(place, Home) else None)
    if out is None:
        raise UserError(f"{place.address} is an archive: name the folder to write with --out DIR")
    model = model_at(place, options.step)
    run = place.spec if isinstance(place, Home) else model.spec
    model = replace(model, saved=demanded(run, options).check(model.saved))
    read = 0 if model.saved.sealed else model.saved.manifest.size
    with Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        bar.begin(f"step {model.saved.manifest.step:,}", read + 4 * model.spec.model.parameters)
        written = export(model, out, options.shard_gb, averaged=options.ema, progress=bar.advance)
    if options.json:
        output.print_json({"folder": str(written)})
    else:
        output.console().print(f"{written}: load it with AutoModelForCausalLM.from_pretrained", soft_wrap=True)
    return EXIT_OK
