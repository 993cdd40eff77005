"""The manual pages that a machine has in one language, as documents."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from aiftrain.data.files import reading
from aiftrain.data.roff import is_mdoc, to_text
from aiftrain.data.spans import Span
from aiftrain.data.text_files import decode
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec

_MAN = Path("/usr/share/man")
_DPKG = Path("/etc/dpkg/dpkg.cfg.d")
_PAGE = re.compile(r".+\.[0-9][a-z]*(\.gz)?")
_PACKAGES = frozenset(
    {
        "cs",
        "da",
        "de",
        "el",
        "es",
        "fi",
        "fr",
        "hu",
        "id",
        "it",
        "ja",
        "mk",
        "nb",
        "nl",
        "pl",
        "pt-br",
        "ro",
        "ru",
        "sr",
        "sv",
        "tr",
        "uk",
        "vi",
        "zh",
    }
)


def find_pages(spec: SourceSpec) -> list[Path]:
    """The pages of `spec.language` below /usr/share/man (or `spec.path`); aliases, which are links, are left out.

    Raises UserError with the command that installs pages where there are none.
    """
    root = Path(spec.path or _MAN) / str(spec.language)
    pages = [p for p in root.glob("man*/*") if _PAGE.fullmatch(p.name) and p.is_file() and not p.is_symlink()]
    if not pages:
        raise UserError(f"no manual pages in {spec.language!r} below {root}: {_advice(str(spec.language))}")
    return pages


def page_documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    """The text of one page; None for references to other pages and for pages in mdoc, which are left out."""
    file = Path(span.file)
    with reading(file):
        raw = file.read_bytes()
    if file.suffix == ".gz":
        raw = _unpacked(raw, file)
    source = decode(raw, spec, span.file)
    if source is None or source.lstrip().startswith(".so ") or is_mdoc(source):
        yield None
    else:
        yield to_text(source) or None


def _unpacked(raw: bytes, file: Path) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} is damaged or no gzip file: {error}") from error


def _advice(language: str) -> str:
    package = language.lower().replace("_", "-")
    others = f"languages with a package: {', '.join(sorted(_PACKAGES))}"
    install = f"`apt-get install manpages-{package}` brings them" if package in _PACKAGES else others
    return f"{install}{_exclusion()}. recipe=smoke needs none: it reads the documentation inside Python"


def _exclusion() -> str:
    """Slim container images tell dpkg to leave manual pages out: then the package alone brings nothing."""
    for file in sorted(_DPKG.glob("*")) if _DPKG.is_dir() else []:
        if re.search(r"^path-exclude\s*=?\s*/usr/share/man", file.read_text(errors="replace"), re.MULTILINE):
            return f" once the line `path-exclude /usr/share/man/*` is taken out of {file}"
    return ""
