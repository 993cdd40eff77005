"""The policy of a run as the gate of a store: asked before it is opened, at each connection, and at each redirect."""

from __future__ import annotations

from aiftrain.errors import ConfigError
from aiftrain.run.egress import Guard
from aiftrain.run.residency import archive_hosts, archive_problems
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec


class PolicyGate:
    """A Gate. Raises ConfigError where checkpoints of `run` may not lie in the archive, EgressError for a host."""

    def __init__(self, archive: ArchiveSpec, run: RunSpec) -> None:
        assert archive.service is not None, "a folder has no gate"
        sealed = bool(run.storage.seal.for_archives)
        problems = archive_problems(run.policy, archive.service, sealed=sealed)
        if problems:
            raise ConfigError(problems)
        self._guard = Guard(run.policy, archive_hosts([archive]))

    def endpoint(self, host: str, port: int) -> None:
        self._guard.look_up(host)

    def address(self, host: str, address: str, port: int) -> None:
        self._guard.learn(host, {address})
        self._guard.connect(address, port)

    def redirect(self, host: str, target: str, port: int) -> None:
        self._guard.look_up(target)
