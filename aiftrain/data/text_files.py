"""Documents from .txt, .jsonl, .jsonl.zst and .parquet files, read as streams.

A reader yields one string a document, and None for a document that is left out: empty ones, and broken ones
where the source says broken_text=skip.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from aiftrain.data.files import optional_module, reading
from aiftrain.data.spans import Span
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec

ENDINGS = (".txt", ".jsonl", ".jsonl.zst", ".parquet")
Lines = Iterable[tuple[int, bytes]]  # where a line starts, and its bytes with the line end

_CHUNK = 1 << 17
_ROWS = 1024


def ending_of(file: Path) -> str | None:
    """Which of `ENDINGS` a file has, whatever its letter case."""
    return next((ending for ending in ENDINGS if file.name.lower().endswith(ending)), None)


def next_cut(file: Path, position: int, spec: SourceSpec) -> int:
    """The first place after `position` where one document has ended and none has begun; the end if there is none."""
    if ending_of(file) not in (".txt", ".jsonl") or (ending_of(file) == ".txt" and spec.split == "file"):
        return file.stat().st_size
    with reading(file), file.open("rb") as stream:
        stream.seek(position)
        stream.readline()
        if ending_of(file) == ".txt" and spec.split == "blank-line":
            while stream.readline().strip():
                pass
        return stream.tell()


def text_documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    """The documents of one file, or of one part of it."""
    file = Path(span.file)
    match ending_of(file):
        case ".txt":
            return _plain_documents(span, spec)
        case ".jsonl":
            return _json_documents(_lines(span), spec, span)
        case ".jsonl.zst":
            return _json_documents(_compressed_lines(file), spec, span)
        case _:
            return _parquet_documents(file, spec)


def decode(raw: bytes, spec: SourceSpec, where: str, offset: int = 0) -> str | None:
    """UTF-8 text, or what the source's policy makes of bytes that are none; `offset` is where `raw` begins."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if spec.broken_text == "skip":
            return None
        if spec.broken_text == "replace":
            return raw.decode("utf-8", "replace")
        raise UserError(
            f"{where}: byte {offset + error.start} (0x{raw[error.start]:02x}) is not UTF-8 text; "
            f"broken_text=replace or broken_text=skip on its source would go on"
        ) from error


def _plain_documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    for offset, raw in _split(_lines(span), spec):
        text = decode(raw, spec, span.file, offset)
        if spec.split != "file" and text:
            text = text.rstrip("\r\n")
        yield text if text and not text.isspace() else None


def _split(lines: Lines, spec: SourceSpec) -> Iterator[tuple[int, bytes]]:
    """Lines gathered into documents; blank lines belong to none, unless the whole file is one."""
    start, gathered = 0, list[bytes]()
    for offset, line in lines:
        blank = spec.split != "file" and not line.strip()
        if gathered and (blank or spec.split == "line"):
            yield start, b"".join(gathered)
            gathered = []
        if not blank:
            start = offset if not gathered else start
            gathered.append(line)
    if gathered:
        yield start, b"".join(gathered)


def _lines(span: Span) -> Lines:
    file = Path(span.file)
    with reading(file), file.open("rb") as stream:
        stream.seek(span.start)
        offset = span.start
        while offset < span.stop and (line := stream.readline()):
            yield offset, line if offset else line.removeprefix(codecs.BOM_UTF8)
            offset += len(line)


def _compressed_lines(file: Path) -> Lines:
    offset, rest = 0, b""
    for chunk in _decompressed(file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield offset, line + b"\n"
            offset += len(line) + 1
    if rest:
        yield offset, rest


def _decompressed(file: Path) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj()
    inside = False
    try:
        with reading(file), file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                while chunk:
                    yield frame.decompress(chunk)
                    chunk, inside = frame.unused_data, not frame.eof
                    if frame.eof:
                        frame = zstandard.ZstdDecompressor().decompressobj()
    except zstandard.ZstdError as error:
        raise UserError(f"{file} is damaged or no zstandard file: {error}") from error
    if inside:
        raise UserError(f"{file} is cut short: it ends in the middle of its compressed data")


def _json_documents(lines: Lines, spec: SourceSpec, span: Span) -> Iterator[str | None]:
    for number, (offset, raw) in enumerate(lines, start=1):
        line = decode(raw, spec, span.file, offset)
        if line is None or line.isspace():
            yield None
            continue
        try:
            text = _whole(_field(json.loads(line), spec.text_key), spec)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{span.file}, line {_lines_before(span) + number}: {error}") from error
        yield text if text and not text.isspace() else None


def _field(record: Any, key: str) -> str:
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object with the field {key!r} is needed, this is {type(record).__name__}")
    if key not in record:
        raise ValueError(f"no field {key!r}; there are {', '.join(map(repr, record))}: set text_key on its source")
    text = record[key]
    if not isinstance(text, str | None):
        raise ValueError(f"the field {key!r} holds {type(text).__name__}, not text")
    return text or ""


def _whole(text: str, spec: SourceSpec) -> str | None:
    """JSON can spell half of a surrogate pair, which is no text: the policy for broken text decides."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if spec.broken_text == "refuse":
            advice = "broken_text=replace or broken_text=skip on its source would go on"
            raise ValueError(f"half of a surrogate pair is no text; {advice}") from error
        return text.encode("utf-8", "replace").decode() if spec.broken_text == "replace" else None
    return text


def _lines_before(span: Span) -> int:
    """How many lines a file has before its part, to name a line as an editor does."""
    count, left = 0, span.start
    with Path(span.file).open("rb") as stream:
        while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
            count, left = count + chunk.count(b"\n"), left - len(chunk)
    return count


def _parquet_documents(file: Path, spec: SourceSpec) -> Iterator[str | None]:
    parquet = optional_module("pyarrow.parquet", "parquet", f"reading {file.name}")
    try:
        with reading(file), parquet.ParquetFile(file) as table:
            _check_column(file, table.schema_arrow, spec.text_key)
            row = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=[spec.text_key]):
                for raw in batch.column(0).cast("large_binary").to_pylist():
                    row += 1
                    text = decode(raw or b"", spec, f"{file}, row {row}")
                    yield text if text and not text.isspace() else None
    except ValueError as error:  # what Arrow's own errors are
        raise UserError(f"{file} is damaged or no Parquet file: {error}") from error


def _check_column(file: Path, schema: Any, key: str) -> None:
    if key not in schema.names:
        raise UserError(f"{file} has no column {key!r}; there are {', '.join(map(repr, schema.names))}: set text_key")
    if str(schema.field(key).type) not in ("string", "large_string", "binary", "large_binary"):
        raise UserError(f"{file}: the column {key!r} holds {schema.field(key).type}, not text")
