"""`script`: the job script on stdout, and nothing touched."""

from __future__ import annotations

import argparse
import sys

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, show_config
from aiftrain.errors import EXIT_OK
from aiftrain.run.folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser)


def run(options: argparse.Namespace) -> int:
    if show_config(options):
        return EXIT_OK
    from aiftrain.launch.script import render
    from aiftrain.plan.plan import make_plan
    from aiftrain.plan.spec import resolve

    spec = resolve(options.overrides)
    plan = make_plan(spec, to_launch=True)
    script = render(spec, plan.execution.layout, RunFolder(spec.run_folder))
    if options.json:
        output.print_json({"run_dir": spec.run_folder, "script": script})
    else:
        sys.stdout.write(script)
    return EXIT_OK
