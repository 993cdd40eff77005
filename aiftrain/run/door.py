"""The door of a process: shut from its first moment on, then open to what a run's policy names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from aiftrain.run import egress, quiet
from aiftrain.run.contacts import Record
from aiftrain.run.policy import PolicySpec

NOBODY = PolicySpec()


def shut() -> None:
    """Let no connection out of this process, and keep the libraries quiet that it will import, until `open_to`."""
    open_to(NOBODY)


def open_to(
    policy: PolicySpec, hosts: Mapping[egress.Host, str] | None = None, record: Record | None = None
) -> egress.Guard:
    """Let out what a policy names, and `hosts`, each with the rule that allows it, and nothing else from now on."""
    quiet.silence(os.environ, policy)
    guard = egress.Guard(policy, hosts, record)
    egress.install(guard)
    return guard


@contextlib.contextmanager
def opened(
    policy: PolicySpec, hosts: Mapping[egress.Host, str] | None = None, record: Record | None = None
) -> Iterator[None]:
    """The same for a part of a process' life."""
    environ, before = dict(os.environ), egress.installed()
    open_to(policy, hosts, record)
    try:
        yield
    finally:
        egress.close()
        egress.install(before)
        os.environ.clear()
        os.environ.update(environ)
