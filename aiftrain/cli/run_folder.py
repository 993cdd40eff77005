"""Opens a run's folder for a start: the same run goes on, another one is refused, and all it reads is written."""

from __future__ import annotations

import json

from aiftrain.errors import UserError
from aiftrain.plan.engine_config import deepspeed_config
from aiftrain.plan.plan import LaunchPlan
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.identity import changed_past, recorded
from aiftrain.run.layout import Execution
from aiftrain.run.spec import Precision, RunSpec

_SHOWN = 12  # differences listed; more help nobody


def open_run(spec: RunSpec) -> RunFolder:
    """The run's folder. UserError, naming each key that differs, where a run with another past lives there."""
    folder = RunFolder(spec.run_folder)
    if not folder.run_json.exists():
        return folder
    before = folder.read_spec()
    changes = changed_past(recorded(before), recorded(spec), *_stand(folder, before))
    if changes:
        shown = [f"  - {key}: was {was}, now {now}" for key, was, now in changes[:_SHOWN]]
        more = [f"  - and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
        advice = "Give this run another folder with run_dir=..., or leave run_dir out: each run has its own."
        raise UserError("\n".join([f"{folder.path} holds another run", *shown, *more, advice]))
    return folder


def founded(spec: RunSpec, folder: RunFolder) -> RunSpec:
    """`spec` under the name that the run's checkpoints go by since its first start."""
    lineage = folder.read_spec().lineage if folder.run_json.exists() else spec.lineage
    return spec if lineage == spec.lineage else spec.model_copy(update={"founded_as": lineage})


def _stand(folder: RunFolder, spec: RunSpec) -> tuple[int, int]:
    """Steps and tokens of the newest checkpoint."""
    from aiftrain.checkpoint.catalog import Catalog

    latest = Catalog.of_run(folder, spec).latest()
    return (latest.manifest.step, latest.manifest.tokens) if latest else (0, 0)


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
    if not ends or ends[-1].get("exit_code") != 0 or ends[-1].get("step") != spec.timeline.total_steps:
        return False
    latest = Catalog.of_run(folder, spec).latest()
    return latest is not None and latest.step == spec.timeline.total_steps


def write_run(folder: RunFolder, spec: RunSpec, plan: LaunchPlan) -> None:
    """What a rank reads, besides data.json. run.json comes last: with it the folder is a run."""
    execution = plan.execution
    folder.write_json(folder.plan_json, plan.model_dump(mode="json"))
    folder.write_json(folder.deepspeed_json, deepspeed_config(spec, execution.layout, execution.precision))
    folder.write_json(folder.run_json, spec.model_dump(mode="json"))
