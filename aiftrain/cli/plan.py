"""`plan`: what a run takes, before it takes anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from aiftrain.cli import output, planning
from aiftrain.cli.composing import add_override_arguments, combinations, show_config
from aiftrain.errors import EXIT_OK, UserError
from aiftrain.run.residency import leaves
from aiftrain.run.spec import RunSpec

if TYPE_CHECKING:
    from rich.console import Console

    from aiftrain.plan.estimate import Estimate, Stage
    from aiftrain.plan.plan import LaunchPlan
    from aiftrain.plan.prediction import Prediction

_NAMED = ("factory", "hardware", "parallelism", "model", "data", "launcher")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_override_arguments(parser, sweeps=True)
    planning.add_arguments(parser)
    parser.add_argument("--points", metavar="FILE.csv", help="predict each run of a table instead")
    parser.add_argument(
        "--calibrate", metavar="FOLDER", nargs="+", help="learn from runs and benches how fast a site is"
    )


def run(options: argparse.Namespace) -> int:
    if options.points is not None or options.calibrate:
        return _of_past_runs(options)
    if show_config(options):
        return EXIT_OK
    if planning.several(options):
        return _of_several(options)
    if options.multirun:
        from aiftrain.cli.sweep import plan_all

        return plan_all(combinations(options), as_json=options.json)
    spec, plan = plan_of(options.overrides)
    if options.json:
        output.print_json(as_document(spec, plan))
    else:
        _show(spec, plan, output.console())
    return EXIT_OK


def _of_several(options: argparse.Namespace) -> int:
    """--search and --compare: several layouts of one run."""
    if options.search:
        from aiftrain.cli.plan_search import run as search

        return search(options)
    from aiftrain.cli.plan_compare import run as compare

    return compare(options)


def _of_past_runs(options: argparse.Namespace) -> int:
    """--points and --calibrate, which describe no run of their own."""
    others = options.overrides or options.multirun or options.cfg or planning.several(options)
    if others or (options.calibrate and options.points is not None):
        raise UserError("--points FILE.csv and --calibrate RUN... stand alone: no overrides, no option but --json")
    if options.calibrate:
        from aiftrain.cli.plan_calibrate import calibrate_from

        return calibrate_from(options.calibrate, as_json=options.json)
    from aiftrain.cli.plan_points import show_points

    return show_points(options.points, as_json=options.json)


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
        "policy": spec.policy.name,
        "leaves": leaves(spec),
        "signed_by": spec.policy.signers,
        **plan.model_dump(mode="json"),
    }


def _show(spec: RunSpec, plan: LaunchPlan, console: Console) -> None:
    estimate = plan.estimate
    output.headline(f"{spec.recipe} on {spec.factory.title}", console)
    rows = [
        *_run_rows(spec, estimate),
        *_layout_rows(spec, plan),
        *_memory_rows(plan),
        *_traffic_rows(plan),
        *_rate_rows(plan.prediction),
        *_job_rows(estimate),
        ("leaves", f"{'; '.join(leaves(spec)) or 'nothing'} (policy={spec.policy.name})"),
        *_signer_rows(spec),
    ]
    output.show(output.facts(rows), console)
    notes = [("assumed", text) for text in plan.assumptions]
    notes += [("unknown", text) for text in plan.unknowns]
    notes += [("warning", text) for text in plan.warnings]
    console.print()
    output.show(output.facts(_once(notes)), console)


def _signer_rows(spec: RunSpec) -> Iterator[tuple[str, str]]:
    if keys := [key[:16] for key in spec.policy.signers]:
        yield "counts", f"only what is signed with {' or '.join(keys)} (policy.signed_by)"


def _run_rows(spec: RunSpec, estimate: Estimate) -> Iterator[tuple[str, str]]:
    yield "model", f"{output.count(estimate.parameters)} parameters ({spec.model.name})"
    yield "run", f"{output.count(estimate.tokens)} tokens in {estimate.steps:,} steps"
    yield from _stage_rows(estimate)
    each = f"{estimate.flops_per_token:.2e} a token (6ND: {estimate.flops_6nd:.2e})"
    yield "compute", f"{estimate.flops:.2e} FLOPs, {each}"


def _stage_rows(estimate: Estimate) -> Iterator[tuple[str, str]]:
    """A step, or the step of each stage; of a batch that grows the first and the last."""
    stages = [s for _, group in groupby(estimate.stages, lambda s: s.name) for s in _first_and_last(list(group))]
    for stage in stages:
        tokens = output.count(stage.global_batch * stage.sequence_length)
        begins = f"from step {stage.first_step:,}: " if stage.first_step else ""
        batch = f"{stage.global_batch:,} sequences of {stage.sequence_length:,} tokens"
        base = f", RoPE base {stage.rope_theta:,.0f}" if stage.rope_theta != estimate.stages[0].rope_theta else ""
        yield stage.name or "step", f"{begins}{tokens} tokens: {batch}{base}"


def _first_and_last(stages: list[Stage]) -> list[Stage]:
    return stages if len(stages) < 3 else [stages[0], stages[-1]]


def _layout_rows(spec: RunSpec, plan: LaunchPlan) -> Iterator[tuple[str, str]]:
    from aiftrain.plan.layouts import strategy_of, words_of

    layout = plan.execution.layout
    nodes = output.plural(layout.nodes, "node")
    yield "ranks", f"{layout.world_size:,}: {nodes} x {layout.ranks_per_node} ({spec.hardware.title})"
    chosen = f"auto: {' '.join(words_of(strategy_of(layout)))}" if spec.parallelism.name == "auto" else None
    passes = f"{layout.accumulation} x {layout.micro_batch} sequences of each rank a step"
    of = f" in every {layout.recompute_every} layers" if layout.recompute_every > 1 else ""
    again = "" if layout.recompute == "none" else f"; {layout.recompute} recomputation{of}"
    yield "strategy", f"{chosen or spec.parallelism.name}, {plan.execution.precision}; {passes}{again}"


def _memory_rows(plan: LaunchPlan) -> Iterator[tuple[str, str]]:
    """The predicted peak and its parts, and what model states would take under each ZeRO stage."""
    use, have = plan.prediction.memory, plan.estimate.memory_per_rank
    of = f"of {output.size(have)}" if have else "of an unknown amount"
    tight = "" if plan.prediction.fits is not False else ", which is too much"
    yield "memory", f"{output.size(use.total)} a rank {of}{tight}; most in the {use.peak_at}"
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "libraries", "fragmentation")
    known = [f"{name} {output.size(octets)}" for name in parts if (octets := getattr(use, name))]
    yield "", ", ".join(known[:4])
    yield "", ", ".join(known[4:])
    by_stage = (f"{stage}: {output.size(octets)}" for stage, octets in enumerate(plan.estimate.states_by_stage))
    yield "", f"model states under ZeRO {', '.join(by_stage)}"
    if plan.state_copy:
        left = "" if plan.state_copy.left is None else f" of {output.size(plan.state_copy.left)} that are left there"
        yield "", f"for saving, in a node's own memory: {output.size(plan.state_copy.size)}{left}"


def _traffic_rows(plan: LaunchPlan) -> Iterator[tuple[str, str]]:
    """What one rank hands to others in a step; nothing where it is alone."""
    kinds = {name.replace("_", "-"): octets for name, octets in plan.traffic if octets}
    if kinds:
        parts = ", ".join(f"{kind} {output.size(octets)}" for kind, octets in kinds.items())
        yield "traffic", f"{output.size(plan.traffic.total)} a rank and step: {parts}"


def _rate_rows(prediction: Prediction) -> Iterator[tuple[str, str]]:
    from aiftrain.cli.plan_cost import rows

    rate = prediction.rate
    if rate is None or prediction.cost is None:
        yield "speed", f"unknown: {prediction.lacking}; plan --calibrate learns it from a run or bench here"
        return
    each = f"{rate.tokens_per_s_per_device:,.0f} a device"
    share = f", {rate.flop_share:.0%} of the peak" if rate.flop_share else ""
    yield "speed", f"{output.count(rate.tokens_per_s)} tokens/s ({each}{share})"
    span = f"{rate.low:.3g} to {rate.high:.3g} in nine of ten runs"
    largest = sorted(rate.parts.items(), key=lambda part: -part[1])
    spent = ", ".join(f"{name} {share:.0%}" for name, share in largest if share >= 0.005)
    yield "", f"{rate.seconds_per_step:.3g} s a step ({span}): {spent}"
    yield from rows(prediction.cost)


def _job_rows(estimate: Estimate) -> Iterator[tuple[str, str]]:
    if estimate.partition is None:
        return
    limit = f", at most {estimate.time_limit} a job" if estimate.time_limit else ""
    yield "job", f"partition {estimate.partition}{limit}"
    if estimate.billed_per_hour is not None:
        yield "billing", f"{estimate.billed_per_hour:,.0f} {estimate.billing_unit}s an hour"


def _once(notes: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each label once, on its first note."""
    last = ""
    for name, text in notes:
        yield ("" if name == last else name), text
        last = name
