"""`data prepare` and `data inspect`: tokens from text, and what became of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, show_config
from aiftrain.errors import EXIT_OK, ConfigError, UserError
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.data.excerpts import Excerpt
    from aiftrain.data.prepare import PreparedCorpus, PreparedSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["prepare", "inspect"], help="make tokens of text, or look at what was made")
    parser.add_argument("--count", type=int, default=4, help="how many excerpts `inspect` shows (default: 4)")
    add_override_arguments(parser)


def run(options: argparse.Namespace) -> int:
    if show_config(options):
        return EXIT_OK
    from aiftrain.data.excerpts import inspect
    from aiftrain.plan.limits import data_problems
    from aiftrain.plan.spec import resolve

    spec = resolve(options.overrides)
    if problems := data_problems(spec):
        raise ConfigError(problems)
    console = output.console(as_json=options.json)
    if options.action == "prepare":
        _show(prepare_shown(spec, console), [], console, as_json=options.json)
    else:
        corpus = _prepared(spec)
        _show(corpus, inspect(corpus, options.count), console, as_json=options.json)
    return EXIT_OK


def prepare_shown(spec: RunSpec, console: Console) -> PreparedCorpus:
    """Prepare the data of `spec`, or find it prepared. On a terminal a bar shows how it goes."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from aiftrain.data.prepare import prepare, prepared

    asked = {"vocab_size": spec.model.vocab_size, "seed": spec.seed}
    corpus = prepared(spec.data, **asked)
    if corpus is not None:
        return corpus
    console.print(f"preparing the data ({', '.join(spec.data.sources)}) in {spec.data.cache_dir}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        return prepare(spec.data, **asked, progress=progress)


def _prepared(spec: RunSpec) -> PreparedCorpus:
    from aiftrain.data.prepare import prepared

    corpus = prepared(spec.data, vocab_size=spec.model.vocab_size, seed=spec.seed)
    if corpus is None:
        raise UserError("this data is not prepared yet: python -m aiftrain data prepare, with the same overrides")
    return corpus


def _show(corpus: PreparedCorpus, excerpts: list[Excerpt], console: Console, *, as_json: bool) -> None:
    if as_json:
        shown = {"excerpts": [excerpt.model_dump() for excerpt in excerpts]} if excerpts else {}
        output.print_json(corpus.model_dump(mode="json") | shown)
        return
    rows = [
        (name, source.language or "", f"{source.weight:.1%}", *_counts(source))
        for name, source in corpus.sources.items()
    ]
    header = ("source", "language", "share", "documents", "tokens", "held out", "unigram loss")
    output.show(output.table(header, rows, numbers=(2, 3, 4, 5, 6)), console)
    tokenizer = corpus.tokenizer
    console.print(f"tokenizer {tokenizer.path} ({tokenizer.vocab_size:,} tokens)", soft_wrap=True)
    for name, source in corpus.sources.items():
        if left_out := source.documents_left_out + source.files_left_out:
            console.print(f"{name}: {left_out:,} documents and files left out (empty, broken, or of another kind)")
    for excerpt in excerpts:
        console.rule(f"{excerpt.source}, document {excerpt.document:,}, {excerpt.tokens:,} tokens", style="dim")
        console.print(excerpt.text, markup=False, highlight=False, soft_wrap=True)


def _counts(source: PreparedSource) -> tuple[str, str, str, str]:
    held_out = source.validation.tokens if source.validation else 0
    return f"{source.train.documents:,}", f"{source.train.tokens:,}", f"{held_out:,}", f"{source.unigram_loss:.3f}"
