"""The guard at the door of a process: it refuses connections to hosts that the policy does not name, before they open.

Python's sockets announce what they are about to do (audit events, PEP 578): a name to be looked up, an address to be
connected to or sent to. The guard listens and raises. It holds back libraries and mistakes, not code that wants out:
native libraries open sockets without a word to Python. What the kernel shows of those is aiftrain.run.sampler's.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from aiftrain.errors import Problem, UserError
from aiftrain.run.connections import name_of
from aiftrain.run.contacts import Contact, Outcome, Record
from aiftrain.run.nodes import Address, job_names, name_servers, own_addresses, parse_address
from aiftrain.run.policy import PolicySpec, spelled, split_host
from aiftrain.run.quiet import NOWHERE

Host = tuple[str, int]  # a name or an address in lower case, and a port

CHECKPOINTS = "policy.checkpoints"  # the rule that allows a store
_INSIDE = ("this machine", "the job's nodes", "policy.networks")
_NAME_SERVICE = 53
_SILENT = {socket.AF_UNIX, socket.AF_NETLINK, socket.AF_ALG}  # families that reach no other machine


class EgressError(UserError):
    """A connection that the policy does not allow. Not an OSError: nobody shall take it for a network that is down."""


class Guard:
    """Decides on names and addresses, and writes down in `record` what became of each.

    `hosts`: those that this process needs besides the policy's own, each with the rule that allows it, such as a store
    that has passed `archive_problems`.
    """

    def __init__(
        self, policy: PolicySpec, hosts: Mapping[Host, str] | None = None, record: Record | None = None
    ) -> None:
        self.policy, self.record = policy, record
        self.nodes: frozenset[Address] = frozenset()  # the addresses of the job's nodes, as they tell each other
        self._rules: dict[Host, str] = {split_host(host): "policy.hosts" for host in policy.hosts} | dict(hosts or {})
        self._names = {name for name, _ in self._rules}
        self._pins = {name: [*map(ipaddress.ip_network, nets)] for name, nets in policy.addresses.items()}
        self._networks = [ipaddress.ip_network(network) for network in policy.networks]
        self._known: dict[Address, set[str]] = defaultdict(set)  # what allowed names were found to mean

    def look_up(self, name: str) -> None:
        """EgressError where a name is none of the job's, and no port of it is allowed: the question itself tells."""
        if name and parse_address(name) is None and name not in self._names and name not in job_names():
            self.note(Contact(_own_name(), "dns", host=name, outcome="refused"))
            raise self._refusal(f"a look-up of the name {name}")

    def look_back(self, host: str) -> None:
        """EgressError where the name of an address is asked for that is no host of this process."""
        address = parse_address(host)
        if address is None:
            self.look_up(host)
        elif address not in self._known and self._inside(address) is None:
            raise self._refusal(f"a look-up of the address {address}")

    def learn(self, name: str, addresses: set[str]) -> None:
        """Remember what a name that may be looked up means, for the connection that follows."""
        if name in self._names or name in job_names():
            for address in map(parse_address, addresses):
                if address is not None:
                    self._known[address].add(name)

    def connect(self, host: str, port: int, protocol: str = "tcp") -> str:
        """The rule that allows a connection to an address or a name; EgressError where none does."""
        process = _own_name()
        try:
            rule = self._decide(host, port)
        except EgressError:
            self.note(self.contact(process, protocol, host, port, None, "refused"))
            raise
        self.note(self.contact(process, protocol, host, port, rule))
        return rule

    def rule_of(self, address: Address, port: int) -> str | None:
        """The rule that allows what is open already; None where none does."""
        if port == _NAME_SERVICE and address in name_servers():
            return "/etc/resolv.conf"
        with contextlib.suppress(EgressError):
            return self._inside(address) or self._allowed(address, port)
        return None

    def contact(
        self, process: str, protocol: str, host: str, port: int, rule: str | None, outcome: Outcome = "allowed"
    ) -> Contact:
        """How it is written down."""
        if rule in _INSIDE:
            return Contact(process, protocol, rule=rule)
        address = parse_address(host)
        names = " ".join(sorted(self._known.get(address, ()))) or None if address else host
        return Contact(process, protocol, names, str(address) if address else None, port, rule, outcome)

    def note(self, contact: Contact) -> None:
        """Write it down, where there is a record."""
        if self.record:
            self.record.note(contact)

    def allow(self, hosts: Mapping[Host, str]) -> None:
        """From now on these too, each with the rule that allows it."""
        self._rules.update(hosts)
        self._names |= {name for name, _ in hosts}

    def look_up_allowed(self) -> None:
        """Learn what the allowed names mean now: other processes look them up without a word to this one."""
        for name, port in list(self._rules):
            with contextlib.suppress(OSError):
                socket.getaddrinfo(name, port)

    def _decide(self, host: str, port: int) -> str:
        if (host, port) == NOWHERE:
            raise self._refusal("a connection by HTTP, which went to the proxy that is not there (aiftrain.run.quiet)")
        address = parse_address(host)
        if address is None:
            return self._by_name(host, port)
        return self._inside(address) or self._allowed(address, port) or self._refuse(str(address), port)

    def _by_name(self, name: str, port: int) -> str:
        """A socket that looks the name up by itself: what it finds cannot be held against the pinned networks."""
        if name in job_names():
            return "the job's nodes"
        rule = self._rules.get((name, port))
        if rule is None or name in self._pins:
            return self._refuse(name, port)
        return rule

    def _inside(self, address: Address) -> str | None:
        if address.is_loopback or address.is_unspecified or address in own_addresses():
            return "this machine"
        if address in self.nodes or self._known.get(address, set()) & job_names():
            return "the job's nodes"
        return "policy.networks" if any(address in network for network in self._networks) else None

    def _allowed(self, address: Address, port: int) -> str | None:
        pinned = (name for name, networks in self._pins.items() if any(address in network for network in networks))
        for name in (*self._known.get(address, ()), str(address), *pinned):
            rule = self._rules.get((name, port))
            if rule is not None:
                self._check_pins(name, address)
                return rule
        return None

    def _check_pins(self, name: str, address: Address) -> None:
        pins = self._pins.get(name)
        if pins is not None and not any(address in network for network in pins):
            networks = ", ".join(self.policy.addresses[name])
            raise self._refusal(f"a connection to {name}, which leads to {address} and not to {networks}", name)

    def _refuse(self, host: str, port: int) -> str:
        address = parse_address(host)
        names = sorted(self._known.get(address, ())) if address else []
        meant = f", where {' and '.join(names)} leads" if names else ""
        raise self._refusal(f"a connection to {spelled(host, port)}{meant}")

    def _refusal(self, what: str, pinned: str | None = None) -> EgressError:
        allowed = ", ".join(sorted(spelled(*host) for host in self._rules)) or "no host"
        where = f"policy.addresses.{pinned}" if pinned else "policy.hosts"
        found = f"refused {what}; policy={self.policy.name} allows {allowed}"
        return EgressError(str(Problem(where, found, "policy.hosts=[HOST], if it may be told what this run knows")))


_guard: Guard | None = None
_hears = False


def installed() -> Guard | None:
    """The guard of this process."""
    return _guard


def install(guard: Guard | None) -> None:
    """Put this process, and all that forks from it, under a guard, in place of the one before.

    A look-up's answers are not announced, so `socket.getaddrinfo` is wrapped to learn them.
    """
    global _guard, _hears
    _guard = guard
    if _hears:
        return
    _hears = True
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        found = look_up(host, port, *rest, **named)
        if _guard is not None:
            _guard.learn(_name(host), {str(answer[4][0]) for answer in found})
        return found

    socket.getaddrinfo = getaddrinfo
    sys.addaudithook(_hear)


def close() -> None:
    """The process ends: its record is completed."""
    if _guard is not None and _guard.record is not None:
        _guard.record.close()


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Python calls it for every audit event of the process, imports and opened files among them."""
    check = _CHECKS.get(event)
    if check is not None and _guard is not None:
        check(_guard, *arguments)


def _on_connect(guard: Guard, sock: socket.socket, address: Any) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        if address is not None:  # sendmsg on a connected socket
            protocol = "tcp" if sock.type == socket.SOCK_STREAM else "udp"
            guard.connect(_name(address[0]), int(address[1]), protocol)
    elif sock.family not in _SILENT:
        raise EgressError(f"policy.hosts: refused a connection of {sock.family!s}, a kind that no policy can allow")


def _on_look_up(guard: Guard, host: Any, *_: Any) -> None:
    guard.look_up(_name(host))


def _on_reverse_look_up(guard: Guard, address: Any) -> None:
    guard.look_back(_name(address[0] if isinstance(address, tuple) else address))


_CHECKS: dict[str, Callable[..., None]] = {
    "socket.connect": _on_connect,
    "socket.sendto": _on_connect,
    "socket.sendmsg": _on_connect,
    "socket.getaddrinfo": _on_look_up,
    "socket.gethostbyname": _on_look_up,
    "socket.gethostbyaddr": _on_reverse_look_up,
    "socket.getnameinfo": _on_reverse_look_up,
}


@functools.cache
def _own_name() -> str:
    return name_of(os.getpid())


def _name(host: Any) -> str:
    """A host as sockets take it, which may be bytes or None, in lower case and without the root's dot."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host or "")
    return text.lower().rstrip(".")
