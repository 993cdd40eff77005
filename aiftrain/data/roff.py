"""From a manual page's roff markup to readable text: headings, paragraphs, literal blocks and special characters.

Covers the man(7) macros and what po4a, DocBook and Perl's pod2man write. Definitions are skipped, conditions
are decided as for a terminal (nroff), tables become lines of cells.
"""

from __future__ import annotations

import re
import unicodedata

_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303", ":": "\u0308", ",": "\u0327", "v": "\u030c"}
# fmt: off
_CHARACTERS = {
    "ss": "ß", "oa": "å", "oA": "Å", "/l": "ł", "/L": "Ł", "/o": "ø", "/O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ",
    "OE": "Œ", "-d": "ð", "-D": "Ð", "Tp": "þ", "TP": "Þ", ".i": "ı", "Fo": "«", "Fc": "»", "fo": "‹", "fc": "›",  # noqa: RUF001
    "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "aq": "'", "dq": '"', "Bq": "„", "bq": "‚", "bu": "•", "en": "–",  # noqa: RUF001
    "em": "—", "hy": "-", "co": "©", "rg": "®", "tm": "™", "de": "°", "mu": "×", "di": "÷", "+-": "±", "<=": "≤",  # noqa: RUF001
    ">=": "≥", "!=": "≠", "->": "→", "<-": "←", "eu": "€", "Eu": "€", "Po": "£", "sc": "§", "ps": "¶", "ct": "¢",
    "r!": "¡", "r?": "¿", "ha": "^", "ti": "~", "ba": "|", "or": "|", "rs": "\\", "sl": "/", "lB": "[", "rB": "]",
    "lC": "{", "rC": "}", "sh": "#", "Do": "$", "at": "@", "dg": "†", "dd": "‡", "ga": "`", "pl": "+",
}
# fmt: on
_STRINGS = {"lq": "“", "rq": "”", "Aq": "'", "R": "®", "Tm": "™"}

_ESCAPE = re.compile(
    r"""\\(?:
        \[ (?P<long>[^]]*) \]              # \[u00E4] \[:a]
      | \( (?P<two>..)                     # \(:a
      | \* (?P<string> \[[^]]*\] | \(.. | .)
      | (?: f | n[+-]? | m | M | F | g | k | V ) (?: \[[^]]*\] | \(.. | . )   # fonts, registers, colours
      | s (?: [+-]? (?: \[[^]]*\] | '[^']*' | \(.. | \d{1,2} ) | [+-]'[^']*' )   # sizes
      | [hvwlLDoxbANRSXYZ] '[^']*'         # movements, widths, drawings
      | (?P<one>.)
    )""",
    re.VERBOSE,
)
_ONE = {"-": "-", " ": " ", "~": " ", "0": " ", "e": "\\", "\\": "\\", "'": "'", "`": "`", "t": "\t", ".": "."}
_BREAKS = frozenset({"PP", "P", "LP", "HP", "sp", "Sp", "RS", "RE", "SY", "YS", "TQ"})
_LITERAL = frozenset({"nf", "EX", "Vb", "CW"})
_LITERAL_ENDS = frozenset({"fi", "EE", "Ve", "CE"})
_FONTS = frozenset({"B", "I", "SM", "SB"})
_ALTERNATING = frozenset({"BR", "RB", "BI", "IB", "IR", "RI"})


def is_mdoc(source: str) -> bool:
    """Whether a page is written in the mdoc macros, a language of its own that is not converted."""
    return re.search(r"^\.\s*Dd\b", source, re.MULTILINE) is not None


def to_text(source: str) -> str:
    """The page as text: paragraphs are single lines, separated by blank lines."""
    page = _Page()
    for line in _joined(source.splitlines()):
        page.feed(line)
    page.end_paragraph()
    text = "\n".join(page.lines)
    return unicodedata.normalize("NFC", re.sub(r"\n{3,}", "\n\n", text)).strip()


def _joined(lines: list[str]) -> list[str]:
    """Lines that end in a backslash go on in the next one."""
    joined: list[str] = []
    going_on = False
    for line in lines:
        if going_on:
            joined[-1] = joined[-1][:-1] + line
        else:
            joined.append(line)
        going_on = re.search(r"(?<!\\)(?:\\\\)*\\$", line) is not None
    return joined


class _Page:
    """What has been read of a page, and in which state reading is."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._words: list[str] = []
        self._strings = dict(_STRINGS)
        self._literal = False
        self._tag_next = False
        self._until: re.Pattern[str] | None = None  # lines are skipped up to this one
        self._false_depth = 0  # open braces of a condition that does not hold
        self._else_holds = False
        self._cells = ""  # what parts the cells of the table that is being read

    def feed(self, line: str) -> None:
        if self._until:
            self._skip(line, self._until)
        elif self._false_depth:
            self._false_depth += line.count(r"\{") - line.count(r"\}")
        elif line.startswith((".", "'")):
            self._request(line[1:].strip())
        elif not line.strip():
            self.end_paragraph()
            self.lines.append("")
        else:
            self._text(self._plain(line))

    def _skip(self, line: str, until: re.Pattern[str]) -> None:
        if option := self._cells and re.search(r"\btab\s*\((.)\)", line):
            self._cells = option[1]
        self._until = None if until.match(line) else until

    def end_paragraph(self) -> None:
        """Write what has been gathered as one line."""
        if self._words:
            self.lines.append(" ".join(self._words))
            self._words = []

    def _text(self, text: str) -> None:
        if self._cells:
            cells = (cell.strip("_= ") for cell in re.sub(r"T[{}]", "", text).split(self._cells))
            self._words += filter(None, ["  ".join(filter(None, cells))])
            self.end_paragraph()
        elif self._literal:
            self.lines.append(text)
        elif text.strip():
            self._words.append(text.strip())
        if self._tag_next:
            self.end_paragraph()
            self._tag_next = False

    def _request(self, request: str) -> None:
        name, _, rest = request.replace("\t", " ").partition(" ")
        rest = rest.strip()
        if name.startswith('\\"') or not name:
            return
        if name in ("if", "ie", "el"):
            self._condition(name, rest)
        elif name in ("de", "de1", "am", "ig"):
            self._until = re.compile(r"^\.\s*\.")
        elif name == "ds":
            key, _, value = rest.partition(" ")
            self._strings[key] = self._plain(value.strip().removeprefix('"'))
        else:
            self._macro(name, [self._plain(word) for word in _arguments(rest)])

    def _condition(self, name: str, rest: str) -> None:
        """`n` (a terminal) and groff's own register hold, everything else does not."""
        holds = self._else_holds
        if name != "el":
            match = re.match(r"(n(?=[\s\\])|\\n\(\.g)\s*", rest)
            holds = match is not None
            self._else_holds = name == "ie" and not holds
            rest = rest[match.end() :] if match else rest
        if holds:
            self.feed(rest.removeprefix(r"\{").removeprefix("\\"))
        else:
            self._false_depth = max(rest.count(r"\{") - rest.count(r"\}"), 0)

    def _macro(self, name: str, words: list[str]) -> None:
        if name in _FONTS:
            self._text(" ".join(words))
        elif name in _ALTERNATING:
            self._text("".join(words))
        elif name == "OP":
            self._text(f"[{' '.join(words)}]")
        elif name in ("UR", "MT") and words:
            self._text(f"<{words[0]}>")
        else:
            self._layout(name, words)

    def _layout(self, name: str, words: list[str]) -> None:
        if name in ("SH", "SS"):
            self._start_block(literal=False)
            self.lines += [" ".join(words), ""] if words else []
            self._tag_next = not words
        elif name in _BREAKS | {"IP", "TP"}:
            self._start_block(literal=self._literal)
            self.lines += words[:1] if name == "IP" else []
            self._tag_next = name == "TP"
        elif name == "br":
            self.end_paragraph()
        elif name in _LITERAL | _LITERAL_ENDS:
            self._start_block(literal=name in _LITERAL)
        elif name in ("TS", "TE"):
            self._start_block(literal=False)
            self._cells = "\t" if name == "TS" else ""
            self._until = re.compile(r".*\.\s*$") if self._cells else None

    def _start_block(self, *, literal: bool) -> None:
        self.end_paragraph()
        self.lines.append("")
        self._literal = literal

    def _plain(self, text: str) -> str:
        text = re.sub(r'(?<!\\)\\".*', "", text).replace(r"\}", "").replace(r"\{", "")
        return _ESCAPE.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        if name := match["long"] or match["two"]:
            return _character(name)
        if match["string"]:
            return self._strings.get(match["string"].strip("([]"), "")
        return _ONE.get(match["one"] or "", "")


def _character(name: str) -> str:
    if re.fullmatch(r"u[0-9A-Fa-f]{4,6}(_[0-9A-Fa-f]{4,6})*", name):
        return "".join(chr(int(code, 16)) for code in name[1:].split("_"))
    if name in _CHARACTERS:
        return _CHARACTERS[name]
    accented = len(name) == 2 and name[1].isalpha()
    return name[1] + _ACCENTS[name[0]] if accented and name[0] in _ACCENTS else ""


def _arguments(rest: str) -> list[str]:
    """A macro's arguments: words, or several words in double quotes, in which "" stands for a quote."""
    found = re.findall(r'"((?:[^"]|"")*)(?:"|$)|((?:\\.|[^\s"\\])(?:\\.|[^\s\\])*)', re.sub(r'(?<!\\)\\".*', "", rest))
    return [word or quoted.replace('""', '"') for quoted, word in found]
