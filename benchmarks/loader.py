"""The loader: tokens a second that one process takes out of a corpus as finished batches.

    python benchmarks/loader.py [--json] [--seconds 3]

Batches of 8 and 64 rows, from one source and from a mixture of eight, in the pseudo-random order of training, with
targets and document numbers. Documents have 500 tokens on average. The files are in the page cache, as they are in
training after a while; what a disk gives is another question. The bar holds for rows of 2,048 tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from aiftrain.data.batches import Batches
from aiftrain.data.corpus import PreparedCorpus, PreparedSource, PreparedTokenizer, TokenRange
from aiftrain.data.indexed import IndexedWriter, token_type
from aiftrain.run.timeline import Phase, Timeline

BAR = 20e6
ENTRIES = 50_000
TOKENS = 64_000_000
CASES = [(length, rows, sources) for length in (2048, 256) for rows in (8, 64) for sources in (1, 8)]


def make_corpus(folder: Path, sources: int) -> PreparedCorpus:
    """A mixture of `sources` equal sources of random tokens, `TOKENS` together."""
    rng = np.random.default_rng(0)
    prepared = {}
    for number in range(sources):
        lengths = rng.geometric(1 / 500, TOKENS // 500 // sources)
        prefix = folder / f"{sources}-{number}"
        with IndexedWriter(prefix, token_type(ENTRIES)) as writer:
            writer.add(rng.integers(0, ENTRIES, lengths.sum(), dtype=np.uint16), lengths)
            writer.commit()
        train = TokenRange(prefix=prefix, first_document=0, documents=len(lengths), tokens=int(lengths.sum()))
        prepared[str(number)] = PreparedSource(
            train=train, validation=None, weight=1 / sources, language=None, digest="", unigram_loss=0
        )
    tokenizer = PreparedTokenizer(path=folder, digest="", vocab_size=ENTRIES, eos_id=0)
    return PreparedCorpus(name="benchmark", tokenizer=tokenizer, sources=prepared, unigram_loss=0, digest="")


def tokens_per_s(corpus: PreparedCorpus, length: int, rows: int, seconds: float) -> float:
    """Take batches one after another for some seconds."""
    timeline = Timeline((Phase(None, rows, 1, length, 1e4),), total_steps=1)
    batches = Batches(corpus, timeline, vocab_size=ENTRIES, seed=0)
    batches.batch(0, 0, rows)
    step, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        batches.batch(step, 0, rows)
        step += 1
    return step * rows * length / (time.perf_counter() - began)


def measure(seconds: float) -> dict[str, object]:
    """Every case, and the slowest of those that the bar holds for."""
    with tempfile.TemporaryDirectory() as folder:
        corpora = {sources: make_corpus(Path(folder), sources) for sources in (1, 8)}
        cases = [
            {
                "sequence_length": length,
                "rows": rows,
                "sources": sources,
                "tokens_per_s": tokens_per_s(corpora[sources], length, rows, seconds),
            }
            for length, rows, sources in CASES
        ]
    slowest = min(case["tokens_per_s"] for case in cases if case["sequence_length"] == 2048)
    return {"cases": cases, "slowest_at_2048": slowest, "bar": BAR}


def table(result: dict[str, object]) -> str:
    """The result for people."""
    cases = result["cases"]
    assert isinstance(cases, list)
    rows = "\n".join(
        f"{case['sequence_length']:8,}{case['rows']:8}{case['sources']:10}{case['tokens_per_s'] / 1e6:18.1f}"
        for case in cases
    )
    head = f"{'length':>8}{'rows':>8}{'sources':>10}{'million tokens/s':>18}\n"
    return f"{head}{rows}\nat 2,048 tokens the bar is {BAR / 1e6:.0f} million tokens/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.seconds)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
