"""Manual-page markup to readable text."""

from __future__ import annotations

import pytest

from aiftrain.data.roff import to_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (r"\fBfett\fP und \fIschr\(:ag\fR, \f(CWcode\fR", "fett und schräg, code"),
        (r"a \- b \-\-help 1\&. 2\|3 x\ y", "a - b --help 1. 23 x y"),
        (r"\('e\(`a\(^o\(~n\(,c\(:u\(vs \(ss \(oa \(/l", "éàôñçüš ß å ł"),
        (r"\(Foguillemets\(Fc \(lqquotes\(rq \(bu \(em", "«guillemets» “quotes” • —"),
        (r"\[u00E4] \[u0061_0308] \[:o] \[co]", "ä ä ö ©"),
        (r"C:\ePATH \\n", r"C:\PATH \n"),
        (r"\s-1SMALL\s0 \s+2big\s0 \h'3n'x\v'-1'y", "SMALL big xy"),
        (r"known \*(Aq unknown \*(zz\*[other]", "known ' unknown"),
        (r"text \" a comment", "text"),
    ],
)
def test_escapes(markup: str, text: str) -> None:
    assert to_text(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("eine\nZeile\n.PP\nneuer\nAbsatz", "eine Zeile\n\nneuer Absatz"),
        ('.TH A 1\n.SH "ZWEI WORTE"\nText\n.SS Unter\nmehr', "ZWEI WORTE\n\nText\n\nUnter\n\nmehr"),
        (".SH\nKopf\nText", "Kopf\nText"),
        (".TP\n.B \\-\\-all\nzeigt\nalles\n.TP\n\\-v\nmehr", "--all\nzeigt alles\n\n-v\nmehr"),
        ('.IP "\\-x" 4\nText', "-x\nText"),
        (".nf\n  a\n   b\n.fi\nText\nText", "a\n   b\n\nText Text"),
        ('.BR ls (1),\n.BI \\-n " zahl"\n.I und\n.B "zwei Worte"', "ls(1), -n zahl und zwei Worte"),
        ("eins\n.br\nzwei", "eins\nzwei"),
        ("Seite\n.UR https://example.org\nhier\n.UE", "Seite <https://example.org> hier"),
        (".SY cmd\n.OP \\-f datei\n.YS", "[-f datei]"),
        ("lange Zeile, \\\ndie weitergeht", "lange Zeile, die weitergeht"),
        ('\'\\" t\n.\\" Kommentar\nText\n.unknown\nText', "Text Text"),
    ],
)
def test_layout(markup: str, text: str) -> None:
    assert to_text(markup) == text


def test_definitions_are_skipped_and_conditions_decided_as_for_a_terminal() -> None:
    markup = r"""
.de Sp
not shown
..
.ds Name Wert
.ie n \{\
.ds Other terminal
'br\}
.el \{\
.ds Other printer
not shown
.\}
.if t not shown
.if n shown
.ie t not shown
.el also shown
\*[Name] \*[Other]
"""
    assert to_text(markup).split() == ["shown", "also", "shown", "Wert", "terminal"]


@pytest.mark.parametrize(("option", "tab"), [("center;", "\t"), ("tab(@) box;", "@")])
def test_tables_become_lines_of_cells(option: str, tab: str) -> None:
    markup = f".TS\n{option}\nl l\nl l.\nName{tab}Wert\n_\nT{{\nzwei\nT}}{tab}drei\n.TE\nText"
    assert to_text(markup).splitlines() == ["Name  Wert", "zwei", "drei", "", "Text"]
