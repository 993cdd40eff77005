"""The folder that keeps prepared corpora, each part under a digest of what it was made from.

files.jsonl                             digests of the files that were read
tokenizers/DIGEST/tokenizer.json        a tokenizer that was trained
sources/DIGEST/train.bin, train.idx     a source, tokenized; validation.bin and .idx where it has such a part
sources/DIGEST/counts.npy               how often each token occurs
sources/DIGEST/record.json              written last: the source is ready
sources/DIGEST/units/                   finished work units, while a preparation goes on
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from aiftrain.data.assembly import Counts, SourceRecord, write_counts
from aiftrain.data.corpus import PreparedTokenizer, SourceResult
from aiftrain.data.digests import FileDigests
from aiftrain.data.files import digest_of, write_json, writing
from aiftrain.data.indexed import IndexedTokens
from aiftrain.data.sources import Source
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.corpus import DataSpec

FORMAT = 1  # of everything in the cache; part of every digest

FileDigest = Mapping[Path, str]


class Cache:
    """What has been prepared, found by its digest."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).absolute()
        self.digests = FileDigests(self.root / "files.jsonl")

    def make(self) -> None:
        """Make the folder. MachineError where that cannot be done."""
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def trained_tokenizer(self, digest: str) -> Path:
        return self.root / "tokenizers" / digest / "tokenizer.json"

    def source_folder(self, digest: str) -> Path:
        return self.root / "sources" / digest

    def result(self, source: Source, digest: str) -> SourceResult | None:
        """A source that is ready, or None. DamagedError where its files are not what its record says."""
        folder = self.source_folder(digest)
        if not (folder / "record.json").is_file():
            return None
        damaged = f"{folder} is damaged; remove it to prepare the source again"
        try:
            record = SourceRecord.model_validate_json((folder / "record.json").read_bytes())
            result = _result(source, digest, folder, record, np.load(folder / "counts.npy"))
            stored = len(IndexedTokens(result.train_prefix))
        except (OSError, EOFError, ValueError, UserError, DamagedError, ValidationError) as error:
            raise DamagedError(f"{damaged}: {error}") from error
        if source.spec.kind != "tokens" and stored != record.train.tokens:
            raise DamagedError(f"{damaged}: train.bin has {stored} tokens, its record {record.train.tokens}")
        return result

    def keep(self, source: Source, digest: str, record: SourceRecord, counts: Counts) -> SourceResult:
        """Declare a source ready."""
        folder = self.source_folder(digest)
        write_counts(folder / "counts.npy", counts)
        write_json(folder / "record.json", record.model_dump(mode="json"))
        return _result(source, digest, folder, record, counts)


def _result(source: Source, digest: str, folder: Path, record: SourceRecord, counts: Counts) -> SourceResult:
    if source.spec.kind == "tokens":
        prefix = Path(source.spec.path or "").absolute()
        return SourceResult(digest, record, prefix, prefix, counts)
    return SourceResult(digest, record, folder / "train", folder / "validation", counts)


def tokenizer_digest(data: DataSpec, sources: Iterable[Source], files: FileDigest, vocab_size: int) -> str:
    """What a tokenizer trained on these sources goes by."""
    texts = sorted(_content(source, files) for source in sources if source.spec.kind != "tokens")
    return digest_of([FORMAT, "tokenizer", vocab_size, data.tokenizer.train_bytes, texts])


def source_digest(
    data: DataSpec, source: Source, files: FileDigest, tokenizer: PreparedTokenizer, *, vocab_size: int, seed: int
) -> str:
    """What a tokenized source goes by: its content and everything that decides what is made of it."""
    if source.spec.kind == "tokens":
        return digest_of([FORMAT, _content(source, files), vocab_size, data.validation_fraction])
    made_with = [tokenizer.digest, tokenizer.eos_id]
    return digest_of([FORMAT, _content(source, files), made_with, data.validation_fraction, seed])


def _content(source: Source, files: FileDigest) -> str:
    """A digest of the source's files and of how they are read; where they lie does not count."""
    spec = source.spec.model_dump(mode="json", exclude={"path", "weight"})
    return digest_of([spec, *([_kind_of_name(source, file), files[file]] for file, _ in source.files)])


def _kind_of_name(source: Source, file: Path) -> str:
    """A text file may be renamed; the name of a module stands in its documentation."""
    return "".join(file.suffixes[-2:]).lower() if source.spec.kind == "text" else file.name


def describe_tokenizer(file: Path, sha256: str, vocab_size: int) -> PreparedTokenizer:
    """A tokenizer file that fits a model. UserError where it has more entries than the model's vocabulary."""
    tokenizer = load_tokenizer(file)
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.path} has {tokenizer.vocab_size} entries and the model's vocabulary "
            f"{vocab_size}: model.vocab_size={tokenizer.vocab_size} or more would fit"
        )
    return PreparedTokenizer(
        path=tokenizer.path, digest=sha256, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id
    )
