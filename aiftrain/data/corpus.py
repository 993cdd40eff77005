"""What preparation hands to a run: the tokenizer, the token files, and the weights of the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiftrain.data.assembly import Counts, Part, SourceRecord
from aiftrain.data.files import digest_of
from aiftrain.run.base import Strict
from aiftrain.run.corpus import DataSpec, SourceSpec


class PreparedTokenizer(Strict):
    """A tokenizer file. `vocab_size` is one more than the largest token, `eos_id` ends a document."""

    path: Path
    digest: str
    vocab_size: int
    eos_id: int


class TokenRange(Part):
    """Documents of the token file PREFIX.bin/.idx, from `first_document` on."""

    prefix: Path


class PreparedSource(Strict):
    """One source, ready to be read.

    `weight` is its share of the mixture's tokens; all weights sum to 1. `unigram_loss` is the cross-entropy, in
    nats per token, of its validation tokens (its training tokens where it has none) under the unigram
    distribution of the mixture's training tokens.
    """

    train: TokenRange
    validation: TokenRange | None
    weight: float
    language: str | None
    digest: str
    unigram_loss: float
    documents_left_out: int = 0  # empty ones, and broken ones where the source says so
    files_left_out: int = 0  # whose endings are none of ours


class PreparedCorpus(Strict):
    """A mixture, ready to be read. `unigram_loss` is the weighted mean of the sources'."""

    name: str
    tokenizer: PreparedTokenizer
    sources: dict[str, PreparedSource]
    unigram_loss: float
    digest: str


def token_files(corpus: PreparedCorpus) -> list[Path]:
    """What the ranks read: of each source and split an .idx and a .bin, each once."""
    splits = [split for source in corpus.sources.values() for split in (source.train, source.validation) if split]
    return list(dict.fromkeys(Path(f"{split.prefix}{ending}") for split in splits for ending in (".idx", ".bin")))


@dataclass(frozen=True)
class SourceResult:
    """What is in a source's folder: its record, the digest it goes by, and its token counts."""

    digest: str
    record: SourceRecord
    train_prefix: Path
    validation_prefix: Path
    counts: Counts


def make_corpus(data: DataSpec, tokenizer: PreparedTokenizer, results: Mapping[str, SourceResult]) -> PreparedCorpus:
    """Weigh the sources and put everything together."""
    weights = mixture_weights(data, {name: result.record.train.tokens for name, result in results.items()})
    losses = unigram_losses({name: result.counts for name, result in results.items()}, weights)
    sources = {
        name: _prepared_source(data.sources[name], result, weights[name], losses[name])
        for name, result in results.items()
    }
    identity = [tokenizer.digest, *([name, source.digest, source.weight] for name, source in sources.items())]
    return PreparedCorpus(
        name=data.name,
        tokenizer=tokenizer,
        sources=sources,
        unigram_loss=sum(weights[name] * losses[name] for name in sources),
        digest=digest_of(identity),
    )


def mixture_weights(data: DataSpec, train_tokens: Mapping[str, int]) -> dict[str, float]:
    """The share of each source, summing to 1: what the spec says, or in proportion to n_i ** (1 / temperature).

    Temperature sampling after Arivazhagan et al. 2019 (arXiv 1907.05019, section 4.2): 1 takes the sources by
    size, larger values bring small languages up. n_i are training tokens.
    """
    given = {name: source.weight for name, source in data.sources.items()}
    by_size = {name: tokens ** (1 / data.temperature) for name, tokens in train_tokens.items()}
    raw = {name: by_size[name] if weight is None else weight for name, weight in given.items()}
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def unigram_losses(counts: Mapping[str, Counts], weights: Mapping[str, float]) -> dict[str, float]:
    """The loss of each source, in nats per token, of a model that knows only how frequent each token is.

    Each source's training counts n_t give (n_t + 1) / (n + V), add-one smoothing (Jurafsky and Martin, Speech and
    Language Processing, chapter 3), so that no token is impossible; the mixture is their weighted mean.
    """
    entries = max(count.shape[1] for count in counts.values())
    mixture = np.zeros(entries)
    for name, (train, _) in counts.items():
        mixture[: len(train)] += weights[name] * (train + 1) / (train.sum() + entries)
        mixture[len(train) :] += weights[name] / (train.sum() + entries)
    return {name: _cross_entropy(count, mixture) for name, count in counts.items()}


def _cross_entropy(counts: Counts, distribution: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    train, validation = counts
    measured = validation if validation.any() else train
    occurring = np.flatnonzero(measured)
    return float(-(measured[occurring] @ np.log(distribution[occurring])) / measured.sum())


def _prepared_source(spec: SourceSpec, result: SourceResult, weight: float, loss: float) -> PreparedSource:
    record = result.record
    validation = record.validation and TokenRange(prefix=result.validation_prefix, **record.validation.model_dump())
    return PreparedSource(
        train=TokenRange(prefix=result.train_prefix, **record.train.model_dump()),
        validation=validation,
        weight=weight,
        language=spec.language,
        digest=result.digest,
        unigram_loss=loss,
        documents_left_out=record.documents_left_out,
        files_left_out=record.files_left_out,
    )
