"""What of a run is past: that alone may not change between a checkpoint and its resumption.

All that a run began with is past: model, data, optimizer, `train`. Future are the stages that have not begun, and how
the learning rate will decay, as long as it does not. A team decides on both when it sees how the run goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiftrain.run.spec import RunSpec

Identity = Mapping[str, Any]  # JSON values by section
Difference = tuple[str, str, str]  # a dotted key, and what it was and is, as JSON

_OF_THE_DECAY = {"schedule", "decay_fraction", "decay_shape", "min_lr_ratio"}
_DECAYS_FROM = "decays_from"
_MISSING = "nothing"


def recorded(spec: RunSpec) -> dict[str, Any]:
    """What a checkpoint keeps of its run: the identity, and the steps after which the learning rate decays."""
    timeline = spec.timeline
    again = (phase.first_step for phase in timeline.stages() if phase.stage and spec.stages[phase.stage].rewarm)
    first_cycle = min([timeline.total_steps, *again])
    return spec.identity() | {_DECAYS_FROM: spec.optimizer.decay_begins(first_cycle)}


def changed_past(was: Identity, now: Identity, step: int, tokens: int) -> list[Difference]:
    """What differs of all that had decided anything after `step` steps of `tokens` tokens. `recorded` identities."""
    decaying = any(_decays(identity, step) for identity in (was, now))
    free = set() if decaying else _OF_THE_DECAY
    return list(_differences(_past(was, step, tokens, free), _past(now, step, tokens, free)))


def changed(was: Identity, now: Identity) -> list[Difference]:
    """All that differs."""
    return [difference for difference in _differences(was, now) if difference[0] != _DECAYS_FROM]


def _past(identity: Identity, step: int, tokens: int, free: set[str]) -> dict[str, Any]:
    optimizer = {name: value for name, value in identity.get("optimizer", {}).items() if name not in free}
    stages = identity.get("stages", {}).items()
    begun = {name: stage for name, stage in stages if _has_begun(stage, step, tokens)}
    rest = {name: value for name, value in identity.items() if name != _DECAYS_FROM}
    return rest | {"optimizer": optimizer, "stages": begun}


def _decays(identity: Identity, step: int) -> bool:
    begin = identity.get(_DECAYS_FROM)
    return begin is not None and step > begin


def _has_begun(stage: Mapping[str, Any], step: int, tokens: int) -> bool:
    """Whether a step of the stage may have been taken."""
    return bool(stage["from_step"] < step if "from_step" in stage else stage["from_tokens"] < tokens)


def _differences(was: object, now: object, key: str = "") -> Iterator[Difference]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in sorted(was.keys() | now.keys()):
            below = f"{key}.{name}" if key else name
            yield from _differences(was.get(name, _MISSING), now.get(name, _MISSING), below)
    elif was != now:
        yield key, json.dumps(was, ensure_ascii=False), json.dumps(now, ensure_ascii=False)
