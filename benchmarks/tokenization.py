"""Tokenization: our whole preparation against `tokenizers` alone, on the same documents and the same cores.

    python benchmarks/tokenization.py [--json] [--rounds 3]

Ours reads a .jsonl file, starts its processes, encodes, hashes, splits and writes .bin/.idx files; the other side
has the documents in memory and only calls `encode_batch`, or `encode_batch_fast`, which leaves out where each token
stands in the text, with all cores. All use the same tokenizer.json, the runs alternate, and the medians are compared;
the ratio is to the faster of the two calls. The text is the source code of Python's standard library.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import tokenizers

from aiftrain.data.prepare import prepare
from aiftrain.data.sources import documents, find_source
from aiftrain.data.tokenizer_training import train_tokenizer
from aiftrain.data.workers import available_cores
from aiftrain.run.corpus import DataSpec, SourceSpec, TokenizerSpec

BAR = 0.9
CALLS = ("encode_batch", "encode_batch_fast")
ENTRIES = 16_384
COPIES = 3  # of the library's sources: starting worker processes takes 0.3 s, which a corpus of 12 MB would show


def make_corpus(folder: Path) -> list[str]:
    """Write corpus.jsonl and tokenizer.json; returns the documents."""
    source = find_source("python", SourceSpec(kind="python-source"))
    train_tokenizer([source], folder / "tokenizer.json", vocab_size=ENTRIES, train_bytes=10_000_000)
    spans = [span for unit in source.units() for span in unit]
    texts = [text for span in spans for text in documents(span, source.spec) if text] * COPIES
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return texts


def ours(folder: Path, number: int) -> tuple[float, int]:
    """Seconds of a preparation from nothing, and the tokens it made (without the ends of documents)."""
    data = DataSpec(
        name="benchmark",
        cache_dir=str(folder / f"cache-{number}"),
        sources={"python": SourceSpec(path=str(folder / "corpus.jsonl"))},
        tokenizer=TokenizerSpec(kind="file", path=str(folder / "tokenizer.json")),
    )
    began = time.perf_counter()
    source = prepare(data, vocab_size=ENTRIES, seed=0).sources["python"]
    seconds = time.perf_counter() - began
    parts = [part for part in (source.train, source.validation) if part]
    return seconds, sum(part.tokens - part.documents for part in parts)


def alone(call: str, folder: Path, texts: list[str]) -> tuple[float, int]:
    """Seconds of one call of the library on all cores, and the tokens it made."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    began = time.perf_counter()
    encodings = getattr(tokenizer, call)(texts, add_special_tokens=False)
    return time.perf_counter() - began, sum(map(len, encodings))


def measure(rounds: int) -> dict[str, float]:
    """Alternate both sides; medians of tokens per second, and ours as a share of theirs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = make_corpus(folder)
        runs = [[ours(folder, number), *(alone(call, folder, texts) for call in CALLS)] for number in range(rounds)]
    tokens = runs[0][0][1]
    if any(made != tokens for run in runs for _, made in run):
        raise SystemExit("the sides made different numbers of tokens: they cannot be compared")
    ours_s, *alone_s = (statistics.median(run[side][0] for run in runs) for side in range(1 + len(CALLS)))
    return {
        "documents": len(texts),
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "tokens": tokens,
        "cores": available_cores(),
        "rounds": rounds,
        "aiftrain_tokens_per_s": tokens / ours_s,
        **{f"{call}_tokens_per_s": tokens / seconds for call, seconds in zip(CALLS, alone_s, strict=True)},
        "ratio": min(alone_s) / ours_s,
        "bar": BAR,
    }


def table(result: dict[str, float]) -> str:
    """The result for people."""
    return (
        f"{result['documents']:,} documents, {result['megabytes']:.0f} MB, {result['tokens']:,} tokens, "
        f"{result['cores']} cores, medians of {result['rounds']} rounds\n"
        f"{'':30}{'tokens/s':>12}\n"
        + "".join(f"{'tokenizers, ' + call:30}{result[f'{call}_tokens_per_s']:12,.0f}\n" for call in CALLS)
        + f"{'aiftrain, all of prepare':30}{result['aiftrain_tokens_per_s']:12,.0f}\n"
        f"ratio {result['ratio']:.2f}, the bar is {result['bar']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds)
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
