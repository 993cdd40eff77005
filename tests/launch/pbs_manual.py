"""The manuals of PBS and PALS as a checker: says of an option, word by word, whether they know it.

qsub: qsub(1B), pbs_resources(7B) and pbs_job_attributes(7B) of https://github.com/openpbs/openpbs, commit cd7ab5e.
mpiexec: the options that HPE's own command line declares, cray/modules/mpiexec/cli.py of
https://github.com/Cray-HPE/craycli, commit 898504f.
"""

from __future__ import annotations

import re
import shlex

_INTEGER = re.compile(r"\d+")
_DURATION = re.compile(r"(\d+:)?(\d+:)?\d+(\.\d+)?")  # [[HOURS:]MINUTES:]SECONDS[.MILLISECONDS]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # of a resource
_VALUE = re.compile(r"[^\s:+,=]+")  # of a resource, without quotes
_WHOLE_JOB = {"select", "place", "walltime"}  # of what -l takes; walltime is not for chunks, mpiprocs only for them
_ATTRIBUTES = {  # of -W, those that we might write
    "group_list": re.compile(r"[^\s,=@]+(@\S+)?"),
    "umask": re.compile(r"[0-7]{1,4}"),
    "depend": re.compile(r"after(any|ok|notok)?(:\d+[\w.\[\]-]*)+"),
}
_OPTIONS = {
    "-N": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,229}"),  # the first alphabetic or numeric; 230: PBS_MAXJOBNAME
    "-j": re.compile(r"oe|eo|n"),
    "-k": re.compile(r"[eo]{1,2}|d[eo]{0,2}|n"),
    "-r": re.compile(r"[yn]"),
    "-q": re.compile(r"[\w.-]+(@[\w.-]+)?|@[\w.-]+"),
}
_PALS = {
    **dict.fromkeys(("-n", "--np", "--ppn", "-d", "--depth"), _INTEGER),
    "--cpu-bind": re.compile(r"none|numa|socket|core|thread|depth|list:[\d,-]+(:[\d,-]+)*|mask:\w+(,\w+)*"),
    "--line-buffer": None,
}


def check_qsub(option: str) -> None:
    """Of a directive, such as `-l place=scatter`. AssertionError: the manual does not have it."""
    name, *values = shlex.split(option)  # qsub takes quotes as a shell does
    assert len(values) == 1, option
    if name == "-l":
        resource, _, value = values[0].partition("=")
        assert resource in _WHOLE_JOB, f"{resource} is no resource of a whole job"
        _check_resource(resource, value)
    elif name == "-W":
        attribute, _, value = values[0].partition("=")
        assert attribute in _ATTRIBUTES and _ATTRIBUTES[attribute].fullmatch(value), option
    else:
        assert name in _OPTIONS and _OPTIONS[name].fullmatch(values[0]), option


def chunks(select: str) -> list[tuple[int, dict[str, str]]]:
    """Of `[N:]RESOURCE=VALUE[:RESOURCE=VALUE...][+...]`: how many, and what each holds."""
    return [_chunk(text) for text in select.split("+")]


def check_mpiexec(words: list[str]) -> dict[str, str]:
    """The options before the program, checked; the program's words are not looked at."""
    assert words[0] == "mpiexec"
    options, rest = {}, words[1:]
    while rest and rest[0].startswith("-"):
        name, grammar = rest[0], _PALS[rest[0]]
        assert grammar is None or grammar.fullmatch(rest[1]), rest[:2]
        options[name] = "" if grammar is None else rest[1]
        rest = rest[1 if grammar is None else 2 :]
    return options


def ranges(binding: str) -> list[set[int]]:
    """The cores of each rank in `list:0-3:4,6`."""
    return [
        {core for part in text.split(",") for core in _span(part)} for text in binding.removeprefix("list:").split(":")
    ]


def _check_resource(name: str, value: str) -> None:
    if name == "select":
        chunks(value)
    elif name == "place":
        _check_place(value)
    else:
        assert _DURATION.fullmatch(value), f"{value} is no duration"


def _chunk(text: str) -> tuple[int, dict[str, str]]:
    parts = text.split(":")
    count = int(parts.pop(0)) if _INTEGER.fullmatch(parts[0]) else 1
    pairs = [part.partition("=")[::2] for part in parts]
    for name, value in pairs:
        assert _NAME.fullmatch(name) and _VALUE.fullmatch(value), f"{name}={value} is no resource of a chunk"
        assert name not in ("walltime", "select", "place"), f"{name} is of the whole job"
    assert len(dict(pairs)) == len(pairs), f"{text} names a resource twice"
    return count, dict(pairs)


def _check_place(value: str) -> None:
    """[ARRANGEMENT][:SHARING][:group=RESOURCE], in any order, one of each."""
    kinds = ("free|pack|scatter|vscatter", "excl|shared|exclhost", r"group=\w+")
    found = [next(kind for kind in kinds if re.fullmatch(kind, part)) for part in value.split(":")]
    assert len(set(found)) == len(found), value


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
