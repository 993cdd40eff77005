"""One process that encodes work units: `python -m aiftrain.data.worker`, started by `workers.Workers`.

It reads JSON lines from standard input, first the job and then units, and answers each unit with one JSON
line. It ends at once when its input ends, so that it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
from queue import SimpleQueue
from threading import Thread
from typing import TextIO

from aiftrain.data.encoding import Job, encode_unit
from aiftrain.data.spans import Span
from aiftrain.data.tokenizer import Tokenizer, load_tokenizer
from aiftrain.errors import AiftrainError, MachineError
from aiftrain.run.door import shut


def main() -> None:
    """Work until the input ends. Nothing of that needs a network."""
    shut()
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(lines,), daemon=True).start()
    answers = _claim_standard_output()
    job = Job.model_validate_json(lines.get())
    tokenizer = load_tokenizer(job.tokenizer)
    while True:
        answer = _answer(job, tokenizer, lines.get())
        print(json.dumps(answer), file=answers, flush=True)


def _answer(job: Job, tokenizer: Tokenizer, line: str) -> dict[str, object]:
    number, unit = json.loads(line)
    try:
        encode_unit(job, number, [Span(*span) for span in unit], tokenizer)
    except AiftrainError as error:
        return {"message": str(error), "machine": isinstance(error, MachineError)}
    return {"unit": number}


def _listen(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _claim_standard_output() -> TextIO:
    """Keep standard output for the answers; what a library prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    main()
