"""Opens a run's folder for a start: the same run goes on, another one is refused, and all it reads is written."""

from __future__ import annotations

import json
from collections.abc import Iterator

from aiftrain.errors import UserError
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import LaunchPlan
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.layout import Execution
from aiftrain.run.spec import Precision, RunSpec

_MISSING = "nothing"
_SHOWN = 12  # differences listed; more help nobody


def open_run(spec: RunSpec) -> RunFolder:
    """The run's folder. UserError, naming each key that differs, where another run lives there."""
    folder = RunFolder(spec.run_folder)
    if not folder.run_json.exists():
        return folder
    changes = list(_changes(folder.read_spec().identity(), spec.identity()))
    if changes:
        shown = [f"  - {key}: was {was}, now {now}" for key, was, now in changes[:_SHOWN]]
        more = [f"  - and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
        advice = "Give this run another folder with run_dir=..., or leave run_dir out: each run has its own."
        raise UserError("\n".join([f"{folder.path} holds another run", *shown, *more, advice]))
    return folder


def begun_with(folder: RunFolder) -> Precision | None:
    """The precision a run began with: `auto` may mean another one on the machine where it goes on."""
    if not folder.plan_json.is_file() or not folder.last_attempt():
        return None
    try:
        document = json.loads(folder.plan_json.read_text(encoding="utf-8"))
        return Execution.model_validate(document["execution"]).precision
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.plan_json} cannot be read as a plan: {error}") from error


def is_finished(folder: RunFolder, spec: RunSpec) -> bool:
    """Whether the run came to its last step, and that step's checkpoint is there."""
    from aiftrain.checkpoint.catalog import Catalog

    ends = [event for event in read_lines(folder.events) if event.get("event") == "end"]
    if not ends or ends[-1].get("exit_code") != 0 or ends[-1].get("step") != spec.train.total_steps:
        return False
    latest = Catalog.of_run(folder, spec).latest()
    return latest is not None and latest.step == spec.train.total_steps


def write_run(folder: RunFolder, spec: RunSpec, plan: LaunchPlan) -> None:
    """What a rank reads, besides data.json. run.json comes last: with it the folder is a run."""
    execution = plan.execution
    folder.write_json(folder.plan_json, plan.model_dump(mode="json"))
    folder.write_json(folder.deepspeed_json, deepspeed_config(spec, execution.layout, execution.precision))
    folder.write_json(folder.run_json, spec.model_dump(mode="json"))


def _changes(was: object, now: object, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted keys whose values differ, with both values as JSON."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted(was.keys() | now.keys()):
            yield from _changes(was.get(name, _MISSING), now.get(name, _MISSING), f"{key}.{name}" if key else name)
    elif was != now:
        yield key, json.dumps(was, ensure_ascii=False), json.dumps(now, ensure_ascii=False)
