"""Short messages between ranks by way of the rendezvous' store, which is there before the process group is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from aiftrain.run.rank import Rank

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_LAST_WORDS = 5.0  # seconds that rank 0 stays for the others to hear why it leaves


class Board:
    """Every rank may tell rank 0 something, and hears its answer. All values are JSON."""

    def __init__(self, store: Store, rank: Rank) -> None:
        self._store: Store = dist.PrefixStore("preflight", store)  # type: ignore[attr-defined]
        self._rank = rank

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which answers."""
        return self._rank.rank == 0

    def tell(self, topic: str, value: Any) -> None:
        """Pin up this rank's word on `topic`, and go on."""
        self._store.set(f"{topic}/{self._rank.rank}", json.dumps(value))

    def silent(self, topic: str, patience: timedelta) -> list[int]:
        """The ranks that have not told their word on `topic` within `patience`."""
        keys = [f"{topic}/{rank}" for rank in range(self._rank.world_size)]
        try:
            self._store.wait(keys, patience)
        except dist.DistStoreError:
            return [rank for rank, key in enumerate(keys) if not self._store.check([key])]
        return []

    def words(self, topic: str, ranks: Sequence[int] | None = None) -> list[Any]:
        """What `ranks`, or all, told on `topic`; waits for it."""
        among = range(self._rank.world_size) if ranks is None else ranks
        keys = [f"{topic}/{rank}" for rank in among]
        self._store.wait(keys)
        return [json.loads(value) for value in self._store.multi_get(keys)]

    def consult(self, topic: str, mine: Any, decide: Callable[[list[Any]], Sequence[Any]]) -> Any:
        """Rank 0 hears every rank's `mine`, in order of rank, and answers each by `decide`.

        Gives this rank's answer.
        """
        self.tell(topic, mine)
        if self._rank.rank == 0:
            for rank, answer in enumerate(decide(self.words(topic))):
                self._store.set(f"{topic} answered/{rank}", json.dumps(answer))
        mine = json.loads(self._store.get(f"{topic} answered/{self._rank.rank}"))
        self.heard(topic)
        return mine

    def heard(self, topic: str) -> None:
        """Say that rank 0's word on `topic` has come here."""
        self._store.add(f"{topic} heard", 1)

    def wait_until_heard(self, topic: str, by: int) -> None:
        """Rank 0's store goes when it leaves: before it does so for good, let `by` ranks hear its word."""
        deadline = time.monotonic() + _LAST_WORDS
        while self._rank.rank == 0 and time.monotonic() < deadline:
            if self._store.add(f"{topic} heard", 0) >= by:
                return
            time.sleep(0.01)
