"""Events of a run in words, as the live view and `status` show them: those that a person wants to see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Event = dict[str, Any]  # a record of events.jsonl


def describe(event: Event) -> str | None:
    """An event in words; None for those that the view shows in other ways."""
    words = _WORDS.get(event.get("event", ""))
    return words(event) if words else None


def _message(before: str = "") -> Callable[[Event], str]:
    """The event's own message, with words before it."""
    return lambda event: f"{before}{event.get('message') or event.get('event')}"


def _start(event: Event) -> str:
    return "; ".join(_machine(event))


def _phase(event: Event) -> str:
    batch, length = event.get("global_batch"), event.get("sequence_length")
    return f"at step {event.get('step')}: batches of {batch} x {length} tokens"


def _saved(event: Event) -> str:
    return f"saved step {event.get('step')} ({_moved(event)})"


def _save_waited(event: Event) -> str:
    return f"the save of step {event.get('step')} waited {event.get('seconds', 0):.1f} s for the one before it"


def _fetched(event: Event) -> str:
    return f"fetched step {event.get('step')} from {event.get('archive')} ({_moved(event)})"


def _fetch_failed(event: Event) -> str:
    return f"step {event.get('step')} did not come from {event.get('archive')}: {event.get('message')}"


def _archive_damaged(event: Event) -> str:
    return f"step {event.get('step')} at {event.get('archive')} was passed over: {event.get('message')}"


def _damaged(event: Event) -> str:
    return f"checkpoint of step {event.get('step')} is damaged and was passed over: {event.get('message', '')}"


def _warning(event: Event) -> str:
    return f"warning: {_on(event)}: {event.get('found')}, where {event.get('expected')} was expected"


def _straggler(event: Event) -> str:
    return f"{_on(event)} took {event.get('ratio')} times as long as others by step {event.get('step')}"


def _rollback(event: Event) -> str:
    return f"{_trouble(event)}; back to step {event.get('to_step')}, without the data in between"


def _ended(event: Event) -> str:
    return f"ended with {event.get('exit_code')}; next: {event.get('next')}, {event.get('why')}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "start": _start,
    "phase": _phase,
    "resume": lambda event: f"resumed at step {event.get('step')}",
    "saved": _saved,
    "save waited": _save_waited,
    "saved uncopied": _message(),
    "unchanged": _message("warning: "),
    "custody damaged": _message(),
    "vanished": _message(),
    "writer restarted": lambda event: f"a process that wrote step {event.get('step')} was killed, and started again",
    "damaged": _damaged,
    "fetched": _fetched,
    "fetch failed": _fetch_failed,
    "archive damaged": _archive_damaged,
    "archive out of reach": lambda event: f"{event.get('archive')} is out of reach: {event.get('message')}",
    "shipper ended": _message("the shipper ended: "),
    "unshipped": _message(),
    "egress": _message("warning: "),
    "wandb lost": _message("wandb goes on no more: "),
    "warning": _warning,
    "bad node": lambda event: f"node {event.get('host')} is bad: {event.get('reason')}",
    "straggler": _straggler,
    "spike": lambda event: f"{_trouble(event)}; applied all the same",
    "skip": lambda event: f"{_trouble(event)}; skipped",
    "rollback": _rollback,
    "void": lambda event: f"checkpoint of step {event.get('step')} was set aside: the run went back to before it",
    "hopeless": lambda event: f"{_trouble(event)}; training cannot go on from there",
    "stopping": lambda event: f"stopping at step {event.get('step')}: asked by {event.get('signal', 'a signal')}",
    "hang": lambda event: f"a rank made no step for {event.get('seconds', 0):,.0f} s and was ended",
    "ended": _ended,
}


def _moved(event: Event) -> str:
    return f"{event.get('bytes', 0) / 1e6:,.0f} MB in {event.get('seconds', 0):.1f} s"


def _trouble(event: Event) -> str:
    """The step, and its numbers that the guard found wrong."""
    loss, norm = (event[name] if event.get(name) is not None else math.nan for name in ("loss", "grad_norm"))
    limit = "" if event.get("limit") is None else f", limit {event['limit']:.3g}"
    words = str(event.get("trouble", "trouble")).replace("_", " ")
    return f"step {event.get('step')}: {words} (loss {loss:.3g}, gradient norm {norm:.3g}{limit})"


def _on(event: Event) -> str:
    """Which ranks and hosts an event is about; few words, however many they are."""
    hosts, ranks = event.get("hosts") or [event.get("host")], event.get("ranks") or []
    more = " and others" if len(hosts) > 1 else ""
    who = f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks"
    return f"{who} on {hosts[0]}{more}"


def _machine(event: Event) -> Iterator[str]:
    millions = event.get("parameters", 0) / 1e6
    ranks = event.get("world_size")
    yield f"{millions:,.1f} M parameters on {ranks} rank{'' if ranks == 1 else 's'} in {event.get('precision')}"
    if event.get("matmul_tflops"):
        yield f"matmul rate here {event['matmul_tflops']:.2f} TFLOP/s"
