"""Training a byte-level BPE tokenizer on a sample that is spread evenly over the sources and over each source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from aiftrain.data.files import commit, part_of, writing
from aiftrain.data.sources import Source, documents
from aiftrain.data.tokenizer import END_OF_DOCUMENT


def train_tokenizer(sources: Sequence[Source], file: Path, *, vocab_size: int, train_bytes: int) -> None:
    """Write a tokenizer.json of `vocab_size` entries (fewer only where the text has no more to merge).

    Byte-level BPE as in GPT-2 (Radford et al. 2019): every text can be encoded, and decoding gives it back.
    The same text gives the same file. Raises UserError where a source cannot be read, MachineError where
    the file cannot be written.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(sources, train_bytes), trainer)
    part = part_of(file)
    with writing(file):
        part.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    commit(part, file)


def sample(sources: Sequence[Source], train_bytes: int) -> Iterator[str]:
    """At most `train_bytes` bytes of text: the sources get equal shares, what a small one leaves goes to the others."""
    shares = _equal_shares([source.size for source in sources], train_bytes)
    for source, share in zip(sources, shares, strict=True):
        yield from _sample_source(source, share)


def _sample_source(source: Source, share: int) -> Iterator[str]:
    """The first texts of each span, in proportion to its size, so that all files are heard."""
    reached = taken = 0
    for span in (span for unit in source.units() for span in unit):
        reached += span.size
        allowed = share * reached // source.size
        for text in documents(span, source.spec):
            if taken >= allowed:
                break
            if text:
                piece = _first_bytes(text, allowed - taken)
                taken += len(piece.encode())
                yield piece


def _first_bytes(text: str, limit: int) -> str:
    return text if len(text) * 4 <= limit else text.encode()[:limit].decode("utf-8", "ignore")


def _equal_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Fill all to the same level, none above its size."""
    shares = [0] * len(sizes)
    waiting = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for position, i in enumerate(waiting):
        shares[i] = min(sizes[i], total // (len(sizes) - position))
        total -= shares[i]
    return shares
