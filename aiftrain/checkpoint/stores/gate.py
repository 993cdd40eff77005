"""What is asked before a store connects: the seam between stores and the policy of a run.

Each question raises a UserError that names the rule, or returns. It is asked before the first byte is sent, and in
this order: the endpoint's host when a store is opened, each address that its name resolves to when a connection is
made (all of them must be allowed), and where a service redirects to, which becomes the endpoint only if it may.
"""

from __future__ import annotations

from typing import Protocol

from aiftrain.errors import UserError


class Gate(Protocol):
    """Hosts in lower case; addresses as numbers, IPv6 without brackets."""

    def endpoint(self, host: str, port: int) -> None: ...

    def address(self, host: str, address: str, port: int) -> None: ...

    def redirect(self, host: str, target: str, port: int) -> None: ...


class NoRedirects:
    """The gate of who has no policy: the service that was chosen, wherever its name leads, and nothing else."""

    def endpoint(self, host: str, port: int) -> None:
        """Every host that was asked for."""

    def address(self, host: str, address: str, port: int) -> None:
        """Every address that it has."""

    def redirect(self, host: str, target: str, port: int) -> None:
        raise UserError(f"{host} sends requests on to {target}, which nobody allowed: nothing was sent there")
