"""Records the steps that `profile_steps` names, and leaves traces and profile.json in the run folder."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from aiftrain.errors import MachineError
from aiftrain.run.folder import RunFolder
from aiftrain.run.profile import Profile, RankTimes
from aiftrain.run.spec import RunSpec
from aiftrain.train.profile.timeline import Timeline, quickest, read_timeline
from aiftrain.train.rendezvous import gather
from aiftrain.train.tracking import Tracker


class StepProfiler:
    """Told of every step by the loop; records where that was asked for. All ranks record, so that they can compare."""

    def __init__(self, spec: RunSpec, folder: RunFolder, rank: int, device: torch.device, tracker: Tracker) -> None:
        self._folder, self._rank, self._device, self._tracker = folder, rank, device, tracker
        self._first, self._last = spec.profile_steps if spec.profile else (0, 0)
        self._keeps_trace = rank == 0 or spec.profile_ranks == "all"
        self._recording: Any = None

    def before(self, step: int) -> None:
        """Step `step` begins. The one before the first warms the profiler up."""
        if self._recording is not None or not self._first - 1 <= step <= self._last:
            return
        warm_up = max(0, self._first - step)
        self._first = max(self._first, step)  # a run that goes on may be in the middle of them
        active = self._last - self._first + 1
        self._recording = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])],
            schedule=schedule(wait=0, warmup=warm_up, active=active, repeat=1),
        )
        self._recording.start()

    def after(self, step: int) -> None:
        """Step `step` has ended, with what was saved and evaluated after it."""
        if self._recording is None:
            return
        self._recording.step()
        if step == self._last:
            recording, self._recording = self._recording, None
            recording.stop()
            self._write(self._timeline(recording))

    def close(self) -> None:
        """The run leaves: where that is before the last of the steps, nothing is written."""
        if self._recording is not None:
            self._recording.stop()
            self._recording = None

    def _timeline(self, recording: Any) -> Timeline:
        """What this rank's trace shows; it is kept in the run folder where it is to be."""
        try:
            with tempfile.TemporaryDirectory(prefix="aiftrain-") as scratch:
                folder = self._folder.profile if self._keeps_trace else Path(scratch)
                folder.mkdir(exist_ok=True)
                file = folder / _trace_name(self._rank)
                recording.export_chrome_trace(str(file))
                with gzip.open(file) as trace:
                    return read_timeline(json.load(trace)["traceEvents"])
        except OSError as error:
            raise MachineError(f"cannot write a profile's trace: {error}") from error

    def _write(self, timeline: Timeline) -> None:
        """Compare with the other ranks, and have rank 0 write what all of them spent."""
        shortest = quickest(gather(timeline.durations))
        own = RankTimes(
            rank=self._rank,
            wall=timeline.wall,
            parts=timeline.parts(shortest or {}),
            hidden_communication=timeline.hidden_communication,
        )
        ranks, kept = gather(own), gather(self._keeps_trace)
        found = Profile(
            attempt=self._tracker.attempt,
            first=self._first,
            last=self._last,
            device="gpu" if timeline.on_gpu else "cpu",
            compared=shortest is not None,
            traces=tuple(_trace_name(rank) for rank, keeps in enumerate(kept) if keeps),
            ranks=tuple(ranks),
        )
        if self._rank == 0:
            self._folder.write_json(self._folder.profile_json, found.model_dump(mode="json"))
            shares = {part: f"{seconds / own.wall:.1%}" for part, seconds in own.parts.items()}
            self._tracker.event("profiled", steps=f"{self._first}-{self._last}", **shares)


def _trace_name(rank: int) -> str:
    """For chrome://tracing and ui.perfetto.dev, which read it compressed."""
    return f"rank-{rank:05d}.trace.json.gz"
