"""A rank in which something that is not Python talks to a stranger: curl, as a native library's helper would."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from tests.rigs.outside import WORLD

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h


def main(arguments: list[str]) -> int:
    """`TALKS_FROM` is the process whose network this one goes into, `TALKS_IN` the folder for curl's number."""
    libc, here = ctypes.CDLL(None), Path.cwd()
    for name, kind in (("net", _CLONE_NEWNET), ("mnt", _CLONE_NEWNS)):  # and its /etc/hosts
        with Path(f"/proc/{os.environ['TALKS_FROM']}/ns/{name}").open("rb") as namespace:
            assert libc.setns(namespace.fileno(), kind) == 0
    os.chdir(here)
    command = ["curl", "--silent", "--noproxy", "*", f"telnet://{WORLD}:443"]
    talker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    Path(os.environ["TALKS_IN"], "pid").write_text(str(talker.pid), encoding="utf-8")
    from aiftrain.train.__main__ import main as train

    try:
        return train(arguments)
    finally:
        talker.kill()
