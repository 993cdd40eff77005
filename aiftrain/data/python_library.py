"""Python's own standard library as text: its documentation and its sources, which every machine here has."""

from __future__ import annotations

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from aiftrain.data.files import files_below, reading
from aiftrain.data.spans import Span
from aiftrain.data.text_files import decode
from aiftrain.errors import UserError
from aiftrain.run.corpus import SourceSpec

_TOPICS = "pydoc_data/topics.py"
_NOT_LIBRARY = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"})
_PUBLIC_DESPITE_UNDERSCORE = frozenset(("__init__", "__future__"))

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def find_modules(spec: SourceSpec) -> list[Path]:
    """The library's .py files (or those below `spec.path`), without tests; for python-docs only public modules.

    Raises UserError where this Python carries no library sources.
    """
    root = Path(spec.path or sysconfig.get_path("stdlib"))
    sources = (file for file in files_below(root, _NOT_LIBRARY) if file.suffix == ".py")
    modules = [name for name in (file.relative_to(root) for file in sources) if not _is_config(name)]
    if spec.kind == "python-docs":
        modules = [name for name in modules if name.as_posix() == _TOPICS or _is_public(name)]
    if not modules:
        raise UserError(f"no Python modules below {root}: kind {spec.kind} needs the sources of the standard library")
    return [root / name for name in modules]


def source_documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    """The file as it is."""
    text = _read(Path(span.file), spec)
    yield text if text and not text.isspace() else None


def docs_documents(span: Span, spec: SourceSpec) -> Iterator[str | None]:
    """Every topic of pydoc's reference; of any other module its docstrings, as one document."""
    file = Path(span.file)
    source = _read(file, spec)
    if source is None:
        yield None
        return
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is no Python source: {error}") from error
    yield from _topics(tree) if file.as_posix().endswith(_TOPICS) else [_docstrings(tree, file)]


def _read(file: Path, spec: SourceSpec) -> str | None:
    with reading(file):
        return decode(file.read_bytes(), spec, str(file))


def _is_public(name: Path) -> bool:
    parts = name.with_suffix("").parts
    return all(not part.startswith("_") or part in _PUBLIC_DESPITE_UNDERSCORE for part in parts)


def _is_config(name: Path) -> bool:
    """config-3.11-x86_64-linux-gnu/ and _sysconfigdata*.py say how this Python was built: they differ by machine."""
    return name.parts[0].startswith(("config-", "_sysconfigdata"))


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            yield from (topics[name].strip() for name in sorted(topics))


def _docstrings(tree: ast.Module, file: Path) -> str | None:
    """Module, classes and functions in their order, each with its signature; None where nothing has a docstring."""
    name = file.parent.name if file.stem == "__init__" else file.stem
    return "\n\n".join(_sections(tree, name)) or None


def _sections(node: _Documented, name: str) -> Iterator[str]:
    docstring = ast.get_docstring(node, clean=False)
    if docstring:
        yield f"{_heading(node, name)}\n\n{inspect.cleandoc(docstring)}"
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            qualified = f"{name}.{child.name}" if isinstance(node, ast.ClassDef) else child.name
            yield from _sections(child, qualified)


def _heading(node: _Documented, name: str) -> str:
    match node:
        case ast.Module():
            return f"module {name}"
        case ast.ClassDef():
            return f"class {name}"
        case _:
            return f"{name}({ast.unparse(node.args)})"
