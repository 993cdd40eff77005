"""A rank's door: shut from its first moment on, then open to what the run's policy names."""

from __future__ import annotations

import os

from aiftrain.errors import UserError
from aiftrain.run import egress, quiet
from aiftrain.run.policy import PolicySpec, address_of
from aiftrain.run.residency import archive_hosts
from aiftrain.run.spec import RunSpec

NOBODY = PolicySpec()


def shut() -> None:
    """Let no connection out of this process, and keep the libraries quiet that it will import, until `open_to`."""
    quiet.silence(os.environ, NOBODY)
    egress.install(egress.Guard(NOBODY))


def open_to(spec: RunSpec) -> None:
    """Let out what the run's policy names. UserError where a library would phone home in spite of the environment."""
    loud = list(quiet.loud())
    if loud:
        raise UserError(f"a library would phone home: {'; '.join(loud)}. What has changed it since this rank began?")
    quiet.silence(os.environ, spec.policy)
    hosts = {}
    if spec.tracking.wandb == "online":
        hosts[address_of(spec.tracking.base_url or "")] = "policy.wandb_hosts"
    if spec.storage.ship == "during":
        hosts |= archive_hosts(spec.storage.archives)
    egress.install(egress.Guard(spec.policy, hosts))
