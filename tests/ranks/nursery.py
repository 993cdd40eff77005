"""Starts ranks in a fraction of a second: this process imports torch and DeepSpeed once, and forks a rank when asked.

A rank is otherwise what a launcher starts: a process with torchrun's variables that runs `aiftrain.train`'s main,
or the main of another module, where the request names one as "program".
Requests come as JSON lines {"folder", "world", "attempt", "port", "env"}, answers are the process ids; a line
{"wait": [pid, ...]} is answered with the exit codes (negative: the signal).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import Any

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  (DeepSpeed loads it late, and with it torch's compiler)

import aiftrain.train.start  # noqa: F401  (what the forked ranks need is loaded here, once)


def start(request: dict[str, Any]) -> list[int]:
    return [_fork(request, rank) for rank in range(request["world"])]


def _fork(request: dict[str, Any], rank: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    world = str(request["world"])
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": world, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": world}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(request["port"])}
    os.environ |= {"AIFTRAIN_ATTEMPT": str(request["attempt"])} | request["env"]
    code = 1
    try:
        program = importlib.import_module(request.get("program", "aiftrain.train.__main__"))
        code = program.main([request["folder"]])
    finally:
        os._exit(code)


def wait(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    gc.freeze()  # a collection in a rank would touch, and so copy, all that was loaded here
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        message = json.loads(line)
        print(json.dumps(wait(message["wait"]) if "wait" in message else start(message)), file=replies, flush=True)
