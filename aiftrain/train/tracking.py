"""What a run tells the world: metrics.jsonl and events.jsonl, which are the truth, and wandb, a copy.

Only rank 0 writes; on other ranks every call does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiftrain.errors import UserError
from aiftrain.run.folder import RunFolder, append_line
from aiftrain.run.rank import Rank
from aiftrain.run.spec import RunSpec

# wandb: keep to the run; no code, no machine facts, no error reports to the vendor.
_WANDB_QUIET: dict[str, object] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}


class Tracker:
    """Writes one attempt's records. `log` takes a step's numbers, `event` what happens now and then."""

    def __init__(self, folder: RunFolder, spec: RunSpec, rank: Rank, attempt: int) -> None:
        self.folder = folder
        self.attempt = attempt
        self._writes = rank.rank == 0
        wanted = self._writes and spec.tracking.wandb != "off"
        self._wandb = _WandbCopy(_start_wandb(folder, spec), attempt) if wanted else None

    def log(self, step: int, **values: Any) -> None:
        """A record of metrics.jsonl for the state after `step` steps."""
        if not self._writes:
            return
        append_line(self.folder.metrics, {"step": step, "attempt": self.attempt, "time": time.time()} | values)
        self._copy(lambda wandb: wandb.log(step, values))
        print(_line(step, values), flush=True)

    def event(self, name: str, **fields: Any) -> None:
        """A record of events.jsonl."""
        if not self._writes:
            return
        write_event(self.folder, self.attempt, name, **fields)

    def close(self) -> None:
        """Let wandb finish its files."""
        self._copy(lambda wandb: wandb.finish())

    def _copy(self, action: Callable[[_WandbCopy], object]) -> None:
        """Do something with wandb. It is only a copy: where it fails, the run goes on without it.

        A scheduler that signals every process of a job ends wandb's own process before the rank has saved.
        """
        if self._wandb is None:
            return
        try:
            action(self._wandb)
        except Exception as error:  # wandb documents no base class for what it raises
            self._wandb = None
            self.event("wandb lost", message=f"{type(error).__name__}: {error}")


class _WandbCopy:
    """Steps as a metric that the others are drawn over: wandb's own count only grows, and what comes for a step that
    was there before, after a rollback, it drops without a word. `pass` tells the curves of an attempt apart.
    """

    def __init__(self, run: Any, attempt: int) -> None:
        self._run, self._attempt, self._pass = run, attempt, 1
        self._last: dict[str, int] = {}  # the step of each name's last value
        run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        if any(self._last.get(name, -1) >= step for name in values):
            self._pass += 1
            self._last.clear()
        self._last |= dict.fromkeys(values, step)
        place = {"step": step, "attempt": self._attempt, "pass": self._pass}
        self._run.log(place | dict(values), step=max(step, self._run.step + 1))

    def finish(self) -> None:
        self._run.finish()


def write_event(folder: RunFolder, attempt: int, name: str, **fields: Any) -> None:
    """A record of events.jsonl, for rank 0 before it has a Tracker."""
    append_line(folder.events, {"time": time.time(), "attempt": attempt, "event": name} | fields)
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in fields.items()), flush=True)


def _start_wandb(folder: RunFolder, spec: RunSpec) -> Any:
    """A wandb run that writes into the run folder and, unless the spec names a server, sends nothing."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            "tracking with wandb needs the package wandb: install aiftrain[train], or tracking=none"
        ) from error
    folder.wandb.mkdir(exist_ok=True)
    settings = _WANDB_QUIET | {"mode": "online" if spec.tracking.wandb == "online" else "offline"}
    if spec.tracking.base_url:
        settings["base_url"] = spec.tracking.base_url
    run = wandb.init(
        project=spec.tracking.project,
        name=f"{spec.recipe}-{spec.digest}",
        id=spec.digest,
        resume="allow" if spec.tracking.wandb == "online" else None,
        dir=str(folder.path),
        config=spec.model_dump(mode="json", exclude={"account"}),
        settings=wandb.Settings(**settings),
    )
    _check_wandb(run, settings)
    return run


def _check_wandb(run: Any, asked: Mapping[str, object]) -> None:
    """UserError where wandb goes by other settings than those asked for: files, a sitecustomize or a later release of
    it may have changed them.
    """
    import wandb.env

    wrong = [
        f"{name} is {found!r} and not {value!r}"
        for name, value in asked.items()
        if (found := getattr(run.settings, name, None)) != value
    ]
    if wandb.env.error_reporting_enabled():
        wrong.append("it reports errors to its vendor")
    if wrong:
        run.finish()
        raise UserError(f"wandb would say more than the policy allows: {'; '.join(wrong)}; tracking=none does without")


def _line(step: int, values: dict[str, Any]) -> str:
    shown = (f"{key} {_short(value)}" for key, value in values.items() if key != "sources")
    return f"step {step}: " + ", ".join(shown)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_short(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
