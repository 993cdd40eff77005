"""A look at what a prepared corpus holds."""

from __future__ import annotations

import numpy as np

from aiftrain.data.corpus import PreparedCorpus, TokenRange
from aiftrain.data.indexed import IndexedTokens
from aiftrain.data.tokenizer import Tokenizer, load_tokenizer
from aiftrain.run.base import Strict

_TOKENS = 120  # shown of a document


class Excerpt(Strict):
    """The beginning of a training document, decoded from its tokens."""

    source: str
    document: int
    tokens: int  # of the whole document
    text: str


def inspect(corpus: PreparedCorpus, count: int) -> list[Excerpt]:
    """`count` excerpts, from all sources in turn, spread evenly over each. DamagedError where files are damaged."""
    tokenizer = load_tokenizer(corpus.tokenizer.path)
    names = list(corpus.sources)
    shares = {name: len(range(number, count, len(names))) for number, name in enumerate(names)}
    found = {name: _excerpts(name, corpus.sources[name].train, shares[name], tokenizer) for name in names}
    return [found[names[number % len(names)]][number // len(names)] for number in range(count)]


def _excerpts(name: str, train: TokenRange, count: int, tokenizer: Tokenizer) -> list[Excerpt]:
    file = IndexedTokens(train.prefix)
    documents = train.first_document + np.arange(count) * train.documents // max(count, 1)
    return [_excerpt(name, number, file, tokenizer) for number in documents.tolist()]


def _excerpt(name: str, number: int, file: IndexedTokens, tokenizer: Tokenizer) -> Excerpt:
    tokens = file.document(number)
    return Excerpt(source=name, document=number, tokens=len(tokens), text=tokenizer.decode(tokens[:_TOKENS].tolist()))
