"""From argv to a verb, and from whatever it raises to a message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from typing import NoReturn

from aiftrain import __version__
from aiftrain.cli.verbs import BY_NAME, LAUNCH, Verb, overview
from aiftrain.errors import EXIT_OK, AiftrainError, ConfigError, MachineError, UserError

_EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells count
_EXIT_UNREAD = 128 + signal.SIGPIPE


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are ours to print."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nusage: {self.format_usage().removeprefix('usage: ').strip()}")


def main(argv: list[str] | None = None) -> int:
    """Run one command, by default the program's own; the exit code. No traceback for what a person can mend."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except AiftrainError as error:
        _tell(error, as_json="--json" in argv)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aiftrain"):
            raise  # a fault of ours, not of the installation
        _tell(_not_installed(error.name), as_json="--json" in argv)
        return UserError.exit_code
    except PermissionError as error:  # of a file of another member of the team, anywhere in a run folder
        denied = MachineError(f"cannot open {error.filename}: {error.strerror}")
        _tell(denied, as_json="--json" in argv)
        return denied.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more when it ends
        return _EXIT_UNREAD


def _not_installed(package: str) -> UserError:
    return UserError(
        f"this Python, {sys.executable}, lacks the package {package}. In a checkout `make smoke` installs all that is "
        "needed into .venv, to be used after `. .venv/bin/activate`; elsewhere install the wheel of aiftrain with pip"
    )


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["--completion"]:
        from aiftrain.cli.completion import run_completion

        return run_completion(argv[1:])
    word, rest = _split(argv)
    if word is None and "--version" in rest:
        print(f"aiftrain {__version__}")
        return EXIT_OK
    if not argv or (word is None and rest[0] in ("-h", "--help")):
        print(overview())
        return EXIT_OK
    return _run(_verb(word or LAUNCH), rest)


def _split(argv: list[str]) -> tuple[str | None, list[str]]:
    """The verb, which may only stand before the first override, and the other words."""
    for place, word in enumerate(argv):
        if "=" in word or word.startswith("~"):
            break
        if not word.startswith("-") and argv[place - 1 : place] != ["--cfg"]:
            return word, argv[:place] + argv[place + 1 :]
    return None, argv


def _run(verb: Verb, arguments: list[str]) -> int:
    module = importlib.import_module(f"aiftrain.cli.{verb.module}")
    usage = f"python -m aiftrain {verb.name} {verb.usage} [options]"
    parser = _Parser(prog=f"python -m aiftrain {verb.name}", usage=usage, description=verb.summary)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; messages go to stderr")
    parser.set_defaults(verb=verb.name)
    module.add_arguments(parser)
    options = parser.parse_intermixed_args(arguments)
    code: int = module.run(options)
    return code


def _verb(word: str) -> Verb:
    if word in BY_NAME:
        return BY_NAME[word]
    from difflib import get_close_matches

    close = get_close_matches(word, BY_NAME, n=1)
    advice = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"there is no verb '{word}'\n      {advice}there are: {', '.join(BY_NAME)}")


def _tell(error: AiftrainError, *, as_json: bool) -> None:
    """The message, on stderr; for programs also as the one document on stdout."""
    print(f"aiftrain: {error}", file=sys.stderr)
    if as_json:
        problems = [vars(problem) for problem in error.problems] if isinstance(error, ConfigError) else []
        document = {
            "kind": type(error).__name__,
            "message": str(error),
            "exit_code": error.exit_code,
            "problems": problems,
        }
        print(json.dumps({"error": document}, indent=2, ensure_ascii=False))
