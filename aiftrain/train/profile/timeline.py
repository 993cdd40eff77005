"""From a trace of torch's profiler to where the time went. Pure: a trace is the list of its Chrome events.

On a GPU computation is what its streams execute, and the messages of NCCL and RCCL are kernels too. On a CPU it is what
torch's own operators do on the thread that trains; gloo's messages are intervals on other threads, from the moment
they are asked for to their end. A moment in which several things happen counts once, for the first of `ORDER`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiftrain.run.profile import Part
from aiftrain.train.profile.intervals import Interval, Intervals, difference, intersection, length, union

Event = Mapping[str, Any]
Key = tuple[str, int]  # which message: its kind and group, and its number among those

MARK = "aiftrain: "  # before a part's name, in the ranges that the loop and the engine mark
# Saving and evaluating are told as such, whatever happens in them; then work before waiting.
ORDER: tuple[Part, ...] = (
    "checkpoint",
    "evaluation",
    "optimizer",
    "compute",
    "data",
    "communication",
    "waiting",
    "host",
)
_STEP = "ProfilerStep#"
_DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCH = ("cuda_runtime", "cuda_driver")
_NCCL = ("nccl", "rccl")
_MICROSECOND = 1e-6


@dataclass(frozen=True)
class Message:
    """One collective or send, as this rank saw it: from when it was there to its end, in microseconds."""

    key: Key
    start: float
    end: float

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """What one rank's trace shows of its steps, in microseconds. `marks` are the ranges of the loop and the engine."""

    on_gpu: bool
    window: Interval
    compute: Intervals
    optimizer: Intervals
    messages: tuple[Message, ...]
    marks: Mapping[str, Intervals]

    def parts(self, quickest: Mapping[Key, float]) -> dict[Part, float]:
        """Seconds of each part; they add up to the wall time of the steps.

        `quickest`: of each message the shortest time that one of its ranks was in it, the last to come. What another
        rank was longer in it, it waited. A message that is not named there counts as communication.
        """
        sent = union((message.start + _wait(message, quickest), message.end) for message in self.messages)
        waited = union((message.start, message.start + _wait(message, quickest)) for message in self.messages)
        layers: dict[Part, Intervals] = {
            "checkpoint": self.marks.get("checkpoint", []),
            "evaluation": self.marks.get("evaluation", []),
            "optimizer": self.optimizer,
            "compute": self.compute,
            "data": self.marks.get("data", []),
            "communication": sent,
            "waiting": waited,
            "host": [self.window],
        }
        left, found = [self.window], dict[Part, float]()
        for part in ORDER:
            found[part] = length(intersection(left, layers[part])) * _MICROSECOND
            left = difference(left, layers[part])
        return found

    @property
    def wall(self) -> float:
        """Seconds."""
        return (self.window[1] - self.window[0]) * _MICROSECOND

    @property
    def hidden_communication(self) -> float:
        """Seconds in which messages went while something was computed."""
        messages = union((message.start, message.end) for message in self.messages)
        busy = union([*self.compute, *self.optimizer])
        return length(intersection(intersection(messages, busy), [self.window])) * _MICROSECOND

    @property
    def durations(self) -> dict[Key, float]:
        """Of each message, in microseconds: what ranks tell each other, to know who waited."""
        return {message.key: message.duration for message in self.messages}


def read_timeline(events: Iterable[Event]) -> Timeline:
    """Raises ValueError where the trace has no steps in it."""
    complete = [event for event in events if event.get("ph") == "X" and "dur" in event]
    steps = [event for event in complete if str(event["name"]).startswith(_STEP) and event["cat"] == "user_annotation"]
    if not steps:
        raise ValueError("the trace has no step of torch's profiler in it")
    window = (min(map(_start, steps)), max(map(_end, steps)))
    marks = _marks(complete)
    on_gpu = any(event.get("cat") == "kernel" for event in complete)
    read = _on_gpu if on_gpu else _on_cpu
    compute, optimizer, messages = read(complete, marks.get("optimizer", []), steps[0]["tid"])
    inside = [message for message in messages if message.end > window[0] and message.start < window[1]]
    return Timeline(on_gpu, window, compute, optimizer, tuple(inside), marks)


def quickest(durations: Sequence[Mapping[Key, float]]) -> dict[Key, float] | None:
    """Of each message the shortest duration over its ranks; None where the ranks' messages do not match.

    They match where all ranks had as many of each kind and group that they have in common. gloo's traces do not name
    groups: there the n-th message of a kind of one rank is held against the n-th of every other.
    """
    counts: dict[str, set[int]] = {}
    for of_rank in durations:
        for kind, count in Counter(kind for kind, _ in of_rank).items():
            counts.setdefault(kind, set()).add(count)
    if len(durations) < 2 or any(len(each) > 1 for each in counts.values()):
        return None
    shortest: dict[Key, float] = {}
    for of_rank in durations:
        for key, duration in of_rank.items():
            shortest[key] = min(duration, shortest.get(key, duration))
    return shortest


Read = tuple[Intervals, Intervals, list[Message]]  # compute, of it the optimizer's, messages


def _on_cpu(events: Sequence[Event], optimizer: Intervals, thread: object) -> Read:
    """Operators of autograd hold hooks in them that wait for messages; what computes are those of ATen."""
    work = union(
        _interval(event)
        for event in events
        if event["cat"] == "cpu_op" and event["tid"] == thread and str(event["name"]).startswith("aten::")
    )
    messages = [event for event in events if str(event["name"]).startswith("gloo:")]
    return difference(work, optimizer), intersection(work, optimizer), _numbered(messages)


def _on_gpu(events: Sequence[Event], optimizer: Intervals, thread: object) -> Read:
    """What was launched inside the optimizer's range is the optimizer's, whenever it is executed."""
    launched = {_correlation(event): _start(event) for event in events if event["cat"] in _LAUNCH}
    compute, of_optimizer, messages = [], [], []
    for event in events:
        if event["cat"] not in _DEVICE_WORK:
            continue
        if _is_message(event):
            messages.append(event)
        elif _inside(launched.get(_correlation(event)), optimizer):
            of_optimizer.append(_interval(event))
        else:
            compute.append(_interval(event))
    return union(compute), union(of_optimizer), _numbered(messages)


def _numbered(events: Iterable[Event]) -> list[Message]:
    """Messages in the order in which they began, numbered by kind and group."""
    seen: Counter[str] = Counter()
    messages = []
    for event in sorted(events, key=_start):
        kind = _kind(event)
        messages.append(Message((kind, seen[kind]), *_interval(event)))
        seen[kind] += 1
    return messages


def _kind(event: Event) -> str:
    """What NCCL's kernels say of their collective and its ranks; else the name alone."""
    arguments = event.get("args", {})
    name = arguments.get("Collective name") or event["name"]
    return f"{name} {arguments.get('Process Group Ranks', '')}".strip()


def _marks(events: Iterable[Event]) -> dict[str, Intervals]:
    found: dict[str, list[Interval]] = {}
    for event in events:
        name = str(event["name"])
        if name.startswith(MARK) and event["cat"] == "user_annotation":
            found.setdefault(name.removeprefix(MARK), []).append(_interval(event))
    return {name: union(pieces) for name, pieces in found.items()}


def _is_message(event: Event) -> bool:
    name = str(event["name"]).lower()
    return event["cat"] == "kernel" and name.startswith(_NCCL)


def _wait(message: Message, shortest: Mapping[Key, float]) -> float:
    return message.duration - min(message.duration, shortest.get(message.key, message.duration))


def _inside(moment: float | None, intervals: Intervals) -> bool:
    return moment is not None and any(start <= moment < end for start, end in intervals)


def _correlation(event: Event) -> object:
    return event.get("args", {}).get("correlation")


def _interval(event: Event) -> Interval:
    return _start(event), _end(event)


def _start(event: Event) -> float:
    return float(event["ts"])


def _end(event: Event) -> float:
    return float(event["ts"]) + float(event["dur"])
