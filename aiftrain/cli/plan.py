"""`plan`: what a run takes, before it takes anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output
from aiftrain.cli.composing import add_override_arguments, combinations, show_config
from aiftrain.errors import EXIT_OK
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.plan.estimate import Estimate
    from aiftrain.plan.plan import LaunchPlan

_NAMED = ("factory", "hardware", "parallelism", "model", "data", "launcher")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser, sweeps=True)


def run(options: argparse.Namespace) -> int:
    if show_config(options):
        return EXIT_OK
    if options.multirun:
        from aiftrain.cli.sweep import plan_all

        return plan_all(combinations(options), as_json=options.json)
    spec, plan = plan_of(options.overrides)
    if options.json:
        output.print_json(as_document(spec, plan))
    else:
        _show(spec, plan, output.console())
    return EXIT_OK


def plan_of(overrides: list[str]) -> tuple[RunSpec, LaunchPlan]:
    """The run that `overrides` describe, and its plan."""
    from aiftrain.plan.plan import make_plan
    from aiftrain.plan.spec import resolve

    spec = resolve(overrides)
    return spec, make_plan(spec)


def as_document(spec: RunSpec, plan: LaunchPlan) -> dict[str, Any]:
    """What `plan --json` prints."""
    names = {group: getattr(spec, group).name for group in _NAMED}
    return {
        "recipe": spec.recipe,
        **names,
        "digest": spec.digest,
        "run_dir": spec.run_folder,
        **plan.model_dump(mode="json"),
    }


def _show(spec: RunSpec, plan: LaunchPlan, console: Console) -> None:
    estimate = plan.estimate
    output.headline(f"{spec.recipe} on {spec.factory.title}", console)
    rows = [
        *_run_rows(spec, estimate),
        *_layout_rows(spec, plan),
        *_storage_rows(spec, estimate),
        *_job_rows(spec, estimate),
    ]
    output.show(output.facts(rows), console)
    notes = [("assumed", text) for text in estimate.assumptions]
    notes += [("unknown", text) for text in estimate.unknowns]
    notes += [("warning", text) for text in estimate.warnings]
    console.print()
    output.show(output.facts(_once(notes)), console)


def _run_rows(spec: RunSpec, estimate: Estimate) -> Iterator[tuple[str, str]]:
    train = spec.train
    yield "model", f"{output.count(estimate.parameters)} parameters ({spec.model.name})"
    yield "run", f"{output.count(estimate.tokens)} tokens in {estimate.steps:,} steps"
    batch = f"{train.global_batch:,} sequences of {train.sequence_length:,} tokens"
    yield "step", f"{output.count(estimate.tokens_per_step)} tokens: {batch}"
    each = f"{estimate.flops_per_token:.2e} a token (6ND: {estimate.flops_6nd:.2e})"
    yield "compute", f"{estimate.flops:.2e} FLOPs, {each}"


def _layout_rows(spec: RunSpec, plan: LaunchPlan) -> Iterator[tuple[str, str]]:
    layout, estimate = plan.execution.layout, plan.estimate
    states = estimate.states
    nodes = output.plural(layout.nodes, "node")
    yield "ranks", f"{layout.world_size:,}: {nodes} x {layout.ranks_per_node} ({spec.hardware.title})"
    passes = f"{layout.accumulation} x {layout.micro_batch} sequences of each rank a step"
    yield "strategy", f"{spec.parallelism.name}, {plan.execution.precision}; {passes}"
    have = f"of {output.size(estimate.memory_per_rank)}" if estimate.memory_per_rank else "of an unknown amount"
    yield "memory", f"{output.size(states.total)} of model states a rank, {have}"
    parts = (("weights", states.weights), ("gradients", states.gradients), ("optimizer", states.optimizer))
    yield "", ", ".join(f"{name} {output.size(octets)}" for name, octets in parts)
    by_stage = (f"{stage}: {output.size(octets)}" for stage, octets in enumerate(estimate.states_by_stage))
    yield "", f"under ZeRO {', '.join(by_stage)}"


def _storage_rows(spec: RunSpec, estimate: Estimate) -> Iterator[tuple[str, str]]:
    each = f"{output.size(estimate.checkpoint_bytes)} every {spec.storage.save_every:,} steps"
    yield "checkpoint", f"{each}; at most {output.size(estimate.checkpoints_kept_bytes)} kept"
    yield "run folder", spec.run_folder


def _job_rows(spec: RunSpec, estimate: Estimate) -> Iterator[tuple[str, str]]:
    if estimate.partition is None:
        return
    limit = f", at most {estimate.time_limit} a job" if estimate.time_limit else ""
    yield "job", f"partition {estimate.partition}{limit}"
    if estimate.billed_per_hour is not None:
        whole = (
            f"; {estimate.billed_at_most:,.0f} for a job of {estimate.time_limit}" if estimate.billed_at_most else ""
        )
        yield "billing", f"{estimate.billed_per_hour:,.0f} {estimate.billing_unit}s an hour{whole}"


def _once(notes: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each label once, on its first note."""
    last = ""
    for name, text in notes:
        yield ("" if name == last else name), text
        last = name
