"""The checks at the start, in their order: who is there, what their nodes are, how fast they are together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aiftrain.run.folder import RunFolder
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec
from aiftrain.train.preflight.alarm import Alarm
from aiftrain.train.preflight.binding import judge_binding
from aiftrain.train.preflight.board import Board
from aiftrain.train.preflight.finding import Finding, Refusal, as_event, grouped, refusal
from aiftrain.train.preflight.links import SIZE, all_reduce_time, clocks, exchange_times
from aiftrain.train.preflight.network import judge_network
from aiftrain.train.preflight.nodes import judge_nodes
from aiftrain.train.preflight.rates import Measured, Where, judge_rates, partners
from aiftrain.train.preflight.roll_call import call_roll
from aiftrain.train.preflight.survey import Sight, look
from aiftrain.train.process import RankProcess
from aiftrain.train.rendezvous import TIMEOUT, connect
from aiftrain.train.tracking import write_event

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


class Preflight:
    """`look` comes before the process group, which hangs or breaks where a node is bad; `measure` after it."""

    def __init__(self, spec: RunSpec, layout: ParallelLayout, folder: RunFolder, attempt: int, rank: Rank) -> None:
        self._spec, self._layout, self._folder, self._attempt, self._rank = spec, layout, folder, attempt, rank
        self._findings: list[Finding] = []  # rank 0 has them
        self._seconds = 0.0  # that the checks took, without the time to make the process group
        self.hosts: list[str] = []  # in order of rank; whole on rank 0

    def look(self, store: Store) -> None:
        """Wait for all ranks, and judge what each sees of its node.

        MachineError, the same on all ranks, where ranks do not come or nodes are bad; UserError where all nodes
        have the same fault.
        """
        self._board = Board(store, self._rank)
        logs = self._folder.attempt_logs(self._attempt)
        self.hosts = call_roll(self._board, self._rank, logs, TIMEOUT, self._note_bad)
        if not self._limit:
            return
        started = time.perf_counter()
        process = RankProcess(self._folder, self._attempt, self._rank)
        self._alarm = Alarm(self._limit, lambda: connect(self._rank, again=True), process, self.hosts, self._note_bad)
        self._alarm.stage("looking at its node")
        sight = look(self._rank, self._spec.hardware, [self._folder.path, self._checkpoints])
        self._alarm.stage("comparing what the nodes show")
        self._partners = self._decide("sights", asdict(sight), self._judge_sights)
        self._seconds += time.perf_counter() - started
        self._alarm.stage("joining the process group")

    def measure(self, device: torch.device, matmul: float | None) -> None:
        """Time the links, and judge them, the clocks, and each rank's `matmul` (FLOP/s). Errors as of `look`."""
        if not self._limit:
            return
        started = time.perf_counter()
        self._alarm.stage("timing the links")
        measured = Measured(clocks(device), matmul, all_reduce_time(device), exchange_times(self._partners, device))
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the loads are large, and the run wants that memory in other pieces
        self._alarm.stage("comparing how fast the nodes are")
        all_reduce = self._decide("rates", asdict(measured), self._judge_rates)
        self._alarm.stop()
        if self._rank.rank == 0:
            seconds = self._seconds + time.perf_counter() - started
            self._tell(seconds, device, all_reduce)

    @property
    def _limit(self) -> float:
        """Seconds. NCCL takes longer to connect more ranks."""
        return self._spec.train.preflight_seconds * (1 + self._rank.world_size // 1000)

    @property
    def _checkpoints(self) -> Path:
        return Path(self._spec.storage.path) if self._spec.storage.path else self._folder.checkpoints

    def _decide(self, topic: str, mine: Any, judge: Any) -> Any:
        """Rank 0 judges all ranks' words, and each hears how it goes on; or all raise the same error."""
        answer = self._board.consult(topic, mine, judge)
        if answer["refusal"]:
            self._alarm.stop()
            refused = Refusal(**answer["refusal"])
            if self._rank.rank == 0:
                self._note_bad(refused.bad_nodes)
                self._board.wait_until_heard(topic, by=self._rank.world_size)
            raise refused.error()
        return answer["go_on"]

    def _judge_sights(self, documents: list[dict[str, Any]]) -> Sequence[Any]:
        sights = [Sight.read(document) for document in documents]
        found = [
            *judge_nodes(sights, self._spec, self._layout),
            *judge_binding(sights, self._spec, self._layout),
            *judge_network(sights, self._spec),
        ]
        return self._answers(found, partners(self.hosts))

    def _judge_rates(self, documents: list[dict[str, Any]]) -> Sequence[Any]:
        measured = [Measured(**document) for document in documents]
        size = SIZE["cpu" if self._spec.hardware.is_cpu else "cuda"]
        found = list(judge_rates(measured, Where(self.hosts, self._spec.hardware, size)))
        return self._answers(found, [min(each.all_reduce for each in measured)] * len(measured))

    def _answers(self, found: Iterable[Finding], go_on: Sequence[Any]) -> Sequence[Any]:
        """Warnings are written at once; what is refused is told by the error."""
        new = list(found)
        for group in grouped(finding for finding in new if not finding.refuses):
            self._event("warning", **as_event(group))
        self._findings += new
        refused = refusal(new, self.hosts)
        return [{"refusal": refused and asdict(refused), "go_on": each} for each in go_on]

    def _tell(self, seconds: float, device: torch.device, all_reduce: float) -> None:
        self._event(
            "preflight",
            seconds=round(seconds, 3),
            nodes=len(set(self.hosts)),
            warnings=len(grouped(self._findings)),
            all_reduce_gb_per_s=round(SIZE[device.type] / all_reduce / 1e9, 3) if self._rank.world_size > 1 else None,
        )

    def _note_bad(self, nodes: Mapping[str, str]) -> None:
        """What keeps a node out of the next start: one event each."""
        for host, reason in nodes.items():
            self._event("bad node", host=host, reason=reason)

    def _event(self, name: str, **fields: Any) -> None:
        write_event(self._folder, self._attempt, name, **fields)
