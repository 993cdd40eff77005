"""What the verbs share that describe a run by overrides: their options, --cfg, and combinations of a sweep."""

from __future__ import annotations

import argparse
import sys

from aiftrain.errors import UserError


def add_override_arguments(parser: argparse.ArgumentParser, *, sweeps: bool = False) -> None:
    """Overrides and the options that go with them; with `sweeps` also -m."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="group=choice, key=value, +new=key, ~key")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration instead")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: fill in interpolations")
    parser.set_defaults(multirun=False)
    if sweeps:
        parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of a,b and range(1,4)")


def show_config(options: argparse.Namespace) -> bool:
    """For `--cfg job`: print the composed configuration. Whether that was asked for."""
    if options.cfg is None:
        if options.resolve:
            raise UserError("--resolve goes with --cfg job")
        return False
    if options.multirun:
        raise UserError("--cfg job shows one run: leave out -m, or give each key one value")
    from aiftrain.plan.compose import compose, compose_config, to_yaml

    if options.json:
        from aiftrain.cli.output import print_json

        print_json(compose(options.overrides))
    else:
        sys.stdout.write(to_yaml(compose_config(options.overrides), resolve=options.resolve))
    return True


def combinations(options: argparse.Namespace) -> list[list[str]]:
    """The overrides of each run: one, or with -m every combination."""
    if not options.multirun:
        return [options.overrides]
    from aiftrain.plan.compose import expand_sweep

    return expand_sweep(options.overrides)


def swept(all_overrides: list[list[str]]) -> list[list[str]]:
    """Of each combination, the overrides that differ between combinations."""
    common = set(all_overrides[0]).intersection(*all_overrides[1:]) if len(all_overrides) > 1 else set()
    return [[override for override in overrides if override not in common] for overrides in all_overrides]
