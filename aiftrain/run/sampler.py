"""Looks, about once a second, at what this process and its children are connected to, native code and all.

What no rule allows is told to whoever started the sampler. It takes a two-hundredth of a core at most: where a look is
dear, as on a node with many sockets, they are further apart.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable

from aiftrain.errors import MachineError
from aiftrain.run.connections import Connection, Family, name_of
from aiftrain.run.contacts import Contact, Outcome
from aiftrain.run.egress import Guard

_EVERY = 1.0  # seconds
_SHARE = 1 / 200  # of a core
_LOOK_UPS = 60.0  # seconds between two rounds of asking what the allowed names mean

OnForbidden = Callable[[Contact, Connection], None]


class Sampler:
    """Goes on to the end of the process. `on_forbidden` hears once of each contact that no rule allows."""

    def __init__(self, guard: Guard, on_forbidden: OnForbidden) -> None:
        self._guard, self._on_forbidden = guard, on_forbidden
        self._family = Family()
        self._told: set[Contact] = set()
        self._looked_up = -math.inf

    def start(self) -> None:
        """From now on look, in a thread of its own."""
        threading.Thread(target=self._watch, name="egress", daemon=True).start()

    def look(self) -> None:
        """Note who is connected now. MachineError where that cannot be written; who is forbidden is told before."""
        unwritten: MachineError | None = None
        for connection in self._family.connections():
            rule = self._rule(connection)
            contact = self._contact(connection, rule)
            try:
                self._guard.note(contact)
            except MachineError as error:
                unwritten = error
            if rule is None and contact not in self._told:
                self._told.add(contact)
                self._on_forbidden(contact, connection)
        if unwritten:
            raise unwritten

    def _watch(self) -> None:
        while True:
            began = time.thread_time()
            try:
                self.look()
            except MachineError as error:  # a full disk, which the training meets too
                print(error, file=sys.stderr, flush=True)
            time.sleep(max(_EVERY, (time.thread_time() - began) / _SHARE))

    def _contact(self, connection: Connection, rule: str | None) -> Contact:
        process, address = name_of(connection.process), str(connection.address)
        outcome: Outcome = "allowed" if rule else "forbidden"
        return self._guard.contact(process, connection.protocol, address, connection.port, rule, outcome)

    def _rule(self, connection: Connection) -> str | None:
        """Asked a second time where a name may mean more by now than this process has heard."""
        rule = self._guard.rule_of(connection.address, connection.port)
        if rule is None and time.monotonic() - self._looked_up > _LOOK_UPS:
            self._looked_up = time.monotonic()
            self._guard.look_up_allowed()
            rule = self._guard.rule_of(connection.address, connection.port)
        return rule
