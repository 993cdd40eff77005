"""From a DataSpec to a PreparedCorpus: find the files, get a tokenizer, tokenize each source, weigh them.

Everything is kept in `data.cache_dir` under digests of what it was made from. What is there is used again,
and what an interrupted preparation left is gone on with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from aiftrain.data.assembly import Counts, SourceRecord, Units, split_in_place, split_units
from aiftrain.data.cache import Cache, FileDigest, describe_tokenizer, source_digest, tokenizer_digest
from aiftrain.data.corpus import PreparedCorpus, PreparedSource, PreparedTokenizer, SourceResult, make_corpus
from aiftrain.data.encoding import Job, record_file
from aiftrain.data.files import locked, writing
from aiftrain.data.indexed import IndexedTokens
from aiftrain.data.sources import Source, find_sources
from aiftrain.data.tokenizer_training import train_tokenizer
from aiftrain.data.workers import available_cores, encode_units
from aiftrain.errors import UserError
from aiftrain.run.corpus import DataSpec

__all__ = ["PreparedCorpus", "PreparedSource", "prepare", "prepared"]

Advance = Callable[[int], None]

_QUICK_BYTES = 64 * 2**20  # read in a moment, to tell whether a corpus is ready


def prepare(data: DataSpec, *, vocab_size: int, seed: int, progress: Progress | None = None) -> PreparedCorpus:
    """Prepare what is not ready yet. `vocab_size` is the model's, `seed` decides the validation documents.

    Several processes may prepare the same corpus: one works, the others wait. Raises UserError where the
    spec asks for something impossible, MachineError where the cache cannot be written.
    """
    return _Preparation(data, vocab_size, seed, progress).run()


def prepared(data: DataSpec, *, vocab_size: int, seed: int) -> PreparedCorpus | None:
    """The corpus if it is ready, else None; reads no large file and writes nothing. Raises as `prepare` does."""
    return _Preparation(data, vocab_size, seed, None).look()


class _Preparation:
    def __init__(self, data: DataSpec, vocab_size: int, seed: int, progress: Progress | None) -> None:
        self._data = data
        self._vocab_size = vocab_size
        self._seed = seed
        self._progress = progress
        self._workers = data.workers or available_cores()
        self._entries = _entries_to_train(data, vocab_size)
        self._cache = Cache(data.cache_dir)
        self._sources = find_sources(data.sources)
        self._files = [file for source in self._sources for file, _ in source.files] + self._tokenizer_files()

    def run(self) -> PreparedCorpus:
        self._cache.make()
        with self._task("reading", sum(source.size for source in self._sources)) as advance:
            files = self._cache.digests.compute(self._files, self._workers, advance)
        tokenizer = self._find_tokenizer(files) or self._train_tokenizer(files)
        results = {source.name: self._tokenize(source, files, tokenizer) for source in self._sources}
        return make_corpus(self._data, tokenizer, results)

    def look(self) -> PreparedCorpus | None:
        files = self._cache.digests.known(self._files, _QUICK_BYTES)
        tokenizer = files and self._find_tokenizer(files)
        if not files or not tokenizer:
            return None
        found = {s.name: self._cache.result(s, self._digest(s, files, tokenizer)) for s in self._sources}
        results = {name: result for name, result in found.items() if result}
        return make_corpus(self._data, tokenizer, results) if len(results) == len(found) else None

    def _tokenizer_files(self) -> list[Path]:
        path = self._data.tokenizer.path
        if self._data.tokenizer.kind == "train" or path is None:
            return []
        file = Path(path).absolute()
        return [file / "tokenizer.json" if file.is_dir() else file]

    def _find_tokenizer(self, files: FileDigest) -> PreparedTokenizer | None:
        """The file that the spec names, or the trained one where it exists."""
        for file in self._tokenizer_files():
            return describe_tokenizer(file, files[file], self._vocab_size)
        trained = self._cache.trained_tokenizer(self._tokenizer_digest(files))
        if not trained.is_file():
            return None
        return describe_tokenizer(trained, trained.parent.name, self._vocab_size)

    def _tokenizer_digest(self, files: FileDigest) -> str:
        return tokenizer_digest(self._data, self._sources, files, self._entries)

    def _train_tokenizer(self, files: FileDigest) -> PreparedTokenizer:
        digest = self._tokenizer_digest(files)
        file = self._cache.trained_tokenizer(digest)
        texts = sorted((s for s in self._sources if s.spec.kind != "tokens"), key=lambda source: source.name)
        with self._task("training the tokenizer", None), locked(file.parent):
            if not file.is_file():
                train_bytes = self._data.tokenizer.train_bytes
                train_tokenizer(texts, file, vocab_size=self._entries, train_bytes=train_bytes)
        return describe_tokenizer(file, digest, self._vocab_size)

    def _digest(self, source: Source, files: FileDigest, tokenizer: PreparedTokenizer) -> str:
        return source_digest(self._data, source, files, tokenizer, vocab_size=self._vocab_size, seed=self._seed)

    def _tokenize(self, source: Source, files: FileDigest, tokenizer: PreparedTokenizer) -> SourceResult:
        digest = self._digest(source, files, tokenizer)
        ready = self._cache.result(source, digest)
        if ready:
            return ready
        folder = self._cache.source_folder(digest)
        with self._task(f"tokenizing {source.name}", source.size) as advance, locked(folder), _naming(source):
            ready = self._cache.result(source, digest)  # another process may have finished it while we waited
            if ready:
                return ready
            record, counts = self._split(source, folder, tokenizer, advance)
            if self._cache.digests.known(file for file, _ in source.files) is None:
                raise UserError("its files have changed while they were read; start again when they are complete")
            record = record.model_copy(update={"files_left_out": source.left_out})
            result = self._cache.keep(source, digest, record, counts)
            shutil.rmtree(folder / "units", ignore_errors=True)
        return result

    def _split(
        self, source: Source, folder: Path, tokenizer: PreparedTokenizer, advance: Advance
    ) -> tuple[SourceRecord, Counts]:
        fraction = self._data.validation_fraction
        if source.spec.kind == "tokens":
            return split_in_place(IndexedTokens(source.spec.path or ""), fraction, self._vocab_size)
        job = Job(spec=source.spec, tokenizer=tokenizer.path, folder=folder / "units", seed=self._seed)
        return split_units(self._encode(source, job, advance), folder, fraction, tokenizer.vocab_size)

    def _encode(self, source: Source, job: Job, advance: Advance) -> Units:
        """Encode the units that no earlier preparation has finished."""
        with writing(job.folder):
            job.folder.mkdir(exist_ok=True)
        units = list(enumerate(source.units()))
        waiting = [(number, unit) for number, unit in units if not record_file(job.prefix(number)).is_file()]
        advance(source.size - sum(span.size for _, unit in waiting for span in unit))
        for _, unit in encode_units(job, waiting, self._workers):
            advance(sum(span.size for span in unit))
        return Units(job, len(units))

    @contextmanager
    def _task(self, description: str, total: int | None) -> Iterator[Advance]:
        """A bar on the caller's progress display; without one, nothing is shown."""
        if self._progress is None:
            yield lambda _: None
            return
        progress, task = self._progress, self._progress.add_task(description, total=total)
        yield lambda size: progress.advance(task, size)
        progress.update(task, total=total or 1, completed=total or 1)


def _entries_to_train(data: DataSpec, vocab_size: int) -> int:
    """How many entries a tokenizer that is to be trained shall have; UserError where it cannot be."""
    asked = data.tokenizer.vocab_size or vocab_size
    if data.tokenizer.kind == "train" and asked > vocab_size:
        raise UserError(
            f"data.tokenizer.vocab_size is {asked} and the model's vocabulary {vocab_size}: "
            f"data.tokenizer.vocab_size={vocab_size} or less would fit"
        )
    if data.tokenizer.kind == "train" and all(spec.kind == "tokens" for spec in data.sources.values()):
        raise UserError(
            "data.tokenizer: no source has text to train on; data.tokenizer.kind=file takes one that exists"
        )
    return asked


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Say in front of a message which source it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"data.sources.{source.name}: {error}") from error
