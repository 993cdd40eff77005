"""`sample RUN "text"`: a trained model continues a text."""

from __future__ import annotations

import argparse
import math

from aiftrain.cli import output
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run import door
from aiftrain.run.folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/smoke/0123456789ab")
    parser.add_argument("text", help="what the model goes on from")
    parser.add_argument("--tokens", type=int, default=64, help="the most tokens it may add (default: 64)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    parser.add_argument("--top-k", type=int, default=50, help="choose among so many tokens (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds choose other tokens (default: 0)")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(options: argparse.Namespace) -> int:
    _check(options)
    folder = RunFolder(options.run)
    spec = folder.read_spec()  # says what is wrong with a wrong folder before torch is loaded
    try:
        from aiftrain.train.sample import sample
    except ImportError as error:
        missing = error.name or "torch"
        raise UserError(f"sampling needs {missing}, which cannot be imported: install the extra `train`") from error

    with door.opened(spec.policy):
        continued = sample(
            folder,
            options.text,
            tokens=options.tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            seed=options.seed,
            step=options.step,
        )
    if options.json:
        output.print_json({"prompt": options.text, "continuation": continued})
    else:
        print(options.text + continued)
    return EXIT_OK


def _check(options: argparse.Namespace) -> None:
    if options.tokens < 1 or options.top_k < 1 or not 0 <= options.temperature < math.inf:
        raise UserError("--tokens and --top-k are at least 1, --temperature is a number that is at least 0")
    if not 0 <= options.seed < 2**63:
        raise UserError("--seed is at least 0 and below 2^63")
