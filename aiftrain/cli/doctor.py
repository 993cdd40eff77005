"""`doctor`: is this machine, this Python and this allocation fit to run it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, show_config
from aiftrain.errors import EXIT_FAILED, EXIT_OK

_ANY_RUN = "recipe=smoke"  # what the machine is examined for where no run is named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser)


def run(options: argparse.Namespace) -> int:
    if not any(override.startswith("recipe=") for override in options.overrides):
        options.overrides.insert(0, _ANY_RUN)
    if show_config(options):
        return EXIT_OK
    from aiftrain.launch.doctor import examine
    from aiftrain.plan.spec import resolve

    spec = resolve(options.overrides)
    checks = examine(spec)
    fit = all(check.state != "fail" for check in checks)
    if options.json:
        output.print_json({"recipe": spec.recipe, "fit": fit, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.state, check.name, f"{check.found}. {check.advice}".rstrip(". ")) for check in checks]
        output.show(output.table(("", "what", "found"), rows), output.console())
        output.console().print(f"\n{'fit' if fit else 'not fit'} to run {spec.recipe}")
    return EXIT_OK if fit else EXIT_FAILED
