"""`--completion`: what the TAB key offers in bash and zsh.

    eval "$(python -m aiftrain --completion bash)"

The shells ask back with `--completion words LINE`, LINE being what stands before the cursor. Hydra's own
completion knows scripts but not `python -m`, and composes a configuration at each TAB; this reads the folders
of choices and the fields of the specs instead.
"""

from __future__ import annotations

import shlex
import sys
import typing
from collections.abc import Iterator

from aiftrain.cli.checkpoints import ACTIONS as CHECKPOINT_ACTIONS
from aiftrain.cli.verbs import BY_NAME
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.plan.groups import AUTO, Groups

_BASH = """\
_aiftrain_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" word offered
    if [[ "${COMP_WORDS[1]} ${COMP_WORDS[2]}" != "-m aiftrain" && "${COMP_WORDS[0]##*/}" != aiftrain ]]; then
        if declare -F "$_aiftrain_before" > /dev/null; then "$_aiftrain_before" "$@"; fi
        return
    fi
    local run=("${COMP_WORDS[0]}" -m aiftrain)
    if [[ "${COMP_WORDS[0]##*/}" == aiftrain ]]; then run=("${COMP_WORDS[0]}"); fi
    offered="$("${run[@]}" --completion words "$line" 2> /dev/null)"
    word="${line##*[[:space:]]}"
    COMPREPLY=()
    local known="${word%"${word##*[=:]}"}" # bash completes only what follows the last = or :
    while IFS= read -r word; do
        if [[ -n "$word" ]]; then COMPREPLY+=("${word#"$known"}"); fi
    done <<< "$offered"
    if [[ "${COMPREPLY[0]}" == *[=.] ]]; then compopt -o nospace; fi
}
_aiftrain_before="$(complete -p python 2> /dev/null | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')"
if [[ "$_aiftrain_before" == _aiftrain_complete ]]; then _aiftrain_before=; fi
complete -o default -o bashdefault -F _aiftrain_complete python python3 aiftrain
"""

_ZSH = """\
_aiftrain_complete() {
    local line="${(j: :)words[1,CURRENT]}"
    local -a run offered
    if [[ "${words[1]:t}" == aiftrain ]]; then
        run=("${words[1]}")
    elif [[ "${words[2]} ${words[3]}" == "-m aiftrain" ]]; then
        run=("${words[1]}" -m aiftrain)
    else
        if (( $+functions[_python] )); then _python "$@"; else _default "$@"; fi
        return
    fi
    offered=("${(@f)$("${run[@]}" --completion words "$line" 2> /dev/null)}")
    compadd -S '' -- "${offered[@]}"
}
if ! (( $+functions[compdef] )); then autoload -Uz compinit && compinit; fi
compdef _aiftrain_complete python python3 aiftrain
"""

_SHELLS = {"bash": _BASH, "zsh": _ZSH}
_OPTIONS = ("--json", "--multirun", "--cfg", "--resolve", "--help")
_OF_PLAN = ("--search", "--deadline", "--budget", "--cheapest", "--compare", "--picture", "--points", "--calibrate")
_SHOWN = tuple(verb.name for verb in BY_NAME.values() if verb.module == "shelves")
_ACTIONS = {
    "data": ("prepare", "inspect"),
    "checkpoints": tuple(CHECKPOINT_ACTIONS),
    "keys": ("new", "show"),
    "env": ("lock", "diff", "wheelhouse", "pack"),
}
_OF_A_RUN = tuple(verb.name for verb in BY_NAME.values() if verb.usage.removeprefix("[").startswith("RUN"))


def run_completion(words: list[str]) -> int:
    """`bash` or `zsh`: the script for that shell. `words LINE`: what may stand at the end of LINE, one a line."""
    if len(words) == 2 and words[0] == "words":
        sys.stdout.writelines(f"{word}\n" for word in offers(words[1]))
    elif words and words[0] in _SHELLS:
        sys.stdout.write(_SHELLS[words[0]])
    else:
        raise UserError(f"--completion takes one of: {', '.join(_SHELLS)}")
    return EXIT_OK


def offers(line: str) -> list[str]:
    """Whole words that may take the place of the last word of `line`, which may be empty."""
    words = _words(line)
    typed, current = words[:-1], words[-1]
    return sorted({word for word in _candidates(typed, current) if word.startswith(current)})


def _words(line: str) -> list[str]:
    """The words after `aiftrain`, the last one as far as it is typed."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    words += [""] if line[-1:].isspace() else []
    return words[3:] if words[1:2] == ["-m"] else words[1:]


def _candidates(typed: list[str], current: str) -> Iterator[str]:
    verbs = [word for word in typed if word in BY_NAME]
    if not typed or all(word.startswith("-") for word in typed):
        yield from BY_NAME
    if current.startswith("-"):
        yield from _OPTIONS
        yield from _OF_PLAN if verbs == ["plan"] else ()
    elif verbs and verbs[0] in _SHOWN:
        yield from _shown(verbs[0], typed)
    elif verbs and verbs[0] in _OF_A_RUN:
        yield from _runs()
    elif verbs and verbs[0] in _ACTIONS and typed[-1] == verbs[0]:
        yield from _ACTIONS[verbs[0]]
    else:
        yield from _overrides(current)


def _runs() -> Iterator[str]:
    from aiftrain.cli.status import all_runs

    yield from (str(run.path) for run in all_runs())


def _shown(verb: str, typed: list[str]) -> Iterator[str]:
    group = {"factories": "factory", "recipes": "recipe"}.get(verb, verb)
    yield from Groups().choices(group) if typed[-1] == "show" else ["show", *(["check"] if verb == "storage" else [])]


def _overrides(current: str) -> Iterator[str]:
    """group=choice, and keys; a key with few possible values comes with them once its `=` is there."""
    groups = Groups()
    group, equals, value = current.partition("=")
    if equals and group in groups.names:
        done, comma, _ = value.rpartition(",")  # a sweep: recipe=smoke,smoke-eu
        extra = [AUTO] if group == "factory" else []
        yield from (f"{group}={done}{comma}{choice}" for choice in groups.choices(group) + extra)
        return
    if not equals:
        yield from (f"{name}=" for name in groups.names)
    yield from _keys(current)


def _keys(current: str) -> Iterator[str]:
    from aiftrain.plan.spec import fields_under

    key, equals, _ = current.partition("=")
    prefix = key.rpartition(".")[0]
    for name, annotation in fields_under(prefix).items():
        if name == "format":  # of run.json, for us
            continue
        full = f"{prefix}.{name}" if prefix else name
        if equals and full == key:
            yield from (f"{full}={word}" for word in _values(annotation))
        elif not equals:
            yield f"{full}." if fields_under(full) else f"{full}="


def _values(annotation: object) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    return [str(word) for word in typing.get_args(annotation) if isinstance(word, str)]
