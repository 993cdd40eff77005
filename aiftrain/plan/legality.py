"""Which layouts the engine can run: each rule a function that gives what stands against a run, with what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import prod

from aiftrain.errors import Problem
from aiftrain.plan.pipeline import zero_stages
from aiftrain.run.layout import ranks_per_node
from aiftrain.run.spec import RunSpec
from aiftrain.run.stages import stage_bounds

Rule = Callable[[RunSpec], Iterator[Problem]]


def heads_share_out(spec: RunSpec) -> Iterator[Problem]:
    """Ranks of a tensor, and those of a sequence, share out the heads of attention."""
    strategy = spec.parallelism
    yield from _shared_out("model.num_heads", spec.model.num_heads, tensor=strategy.tensor, sequence=strategy.sequence)


def tensors_share_out(spec: RunSpec) -> Iterator[Problem]:
    """What the ranks of a tensor share out besides the heads."""
    model, tensor = spec.model, spec.parallelism.tensor
    sizes = {"vocab_size": model.vocab_size}
    if model.latent is None:
        sizes["num_kv_heads"] = model.num_kv_heads
    if model.expert_layers < model.num_layers:
        sizes["intermediate_size"] = model.intermediate_size
    if model.moe:
        sizes["moe.expert_intermediate_size"] = model.moe.expert_intermediate_size
        sizes["moe.shared_intermediate_size"] = model.moe.shared_intermediate_size
    for name, size in sizes.items():
        yield from _shared_out(f"model.{name}", size, tensor=tensor)


def sequences_share_out(spec: RunSpec) -> Iterator[Problem]:
    """Ranks of a sequence have equal parts of it, in every stage."""
    lengths = {"train": spec.train.sequence_length}
    lengths |= {f"stages.{name}": stage.sequence_length for name, stage in spec.stages.items() if stage.sequence_length}
    for where, length in lengths.items():
        yield from _shared_out(f"{where}.sequence_length", length, sequence=spec.parallelism.sequence)


def stages_have_layers(spec: RunSpec) -> Iterator[Problem]:
    """Every stage of a pipeline has one at least."""
    stages, layers = spec.parallelism.pipeline, spec.model.num_layers
    if stages > layers:
        found = f"{stages} stages, but the model has {layers} layers, and every stage needs one"
        yield Problem("parallelism.pipeline", found, f"parallelism.pipeline={layers} or less")


def zero_leaves_the_pipeline_going(spec: RunSpec) -> Iterator[Problem]:
    """From stage 2 on ZeRO's ranks talk in every pass, in the middle of a pipeline's schedule."""
    stage = spec.parallelism.stage
    if stage not in zero_stages(spec):
        shared = "gradients" if stage == 2 else "weights and gradients"
        found = f"{stage}, but in a pipeline it exchanges {shared} in every pass, and the stages would wait"
        fits = f"parallelism.zero_stage=1, or no pipeline: parallelism=zero{stage}"
        yield Problem("parallelism.zero_stage", found, fits)


def experts_share_out(spec: RunSpec) -> Iterator[Problem]:
    """Ranks that share out the batch have equal parts of the experts."""
    moe, strategy = spec.model.moe, spec.parallelism
    if strategy.expert == 1:
        return
    if moe is None:
        found = f"{strategy.expert} ranks would share out experts, and model {spec.model.name} has none"
        yield Problem("parallelism.expert", found, "parallelism.expert=1, or a model with experts (model.moe)")
        return
    yield from _shared_out("model.moe.num_experts", moe.num_experts, expert=strategy.expert)
    sharers = _sharers(spec)
    if sharers % strategy.expert:
        fitting = _list(n for n in _divisors(sharers) if moe.num_experts % n == 0)
        found = f"{strategy.expert} is no part of the {sharers} ranks that share out the batch"
        yield Problem("parallelism.expert", found, f"parallelism.expert of {fitting}")


def experts_go_with(spec: RunSpec) -> Iterator[Problem]:
    """What DeepSpeed cannot do together with experts that ranks share out."""
    strategy = spec.parallelism
    if strategy.expert == 1:
        return
    where = "parallelism.expert"
    if strategy.zero_stage == 3 and strategy.tensor > 1:
        found = (
            f"{strategy.expert} with tensor {strategy.tensor} under ZeRO 3: DeepSpeed gets the gradients' norm wrong"
        )
        yield Problem(where, found, "parallelism.zero_stage=2, or parallelism.tensor=1, or parallelism.expert=1")
    if strategy.shard_group or strategy.secondary_group > 1:
        found = f"{strategy.expert} with a group that shares out the states, which DeepSpeed has for no experts"
        yield Problem(where, found, "parallelism.expert=1, or no parallelism.shard_group and secondary_group")


def groups_are_of_stage_3(spec: RunSpec) -> Iterator[Problem]:
    """Groups that share out weights, and weights in the CPUs' memory: below stage 3 every rank has all weights."""
    strategy = spec.parallelism
    if strategy.stage == 3:
        return
    asked = {
        "shard_group": (strategy.shard_group, strategy.shard_group is not None, "null"),
        "secondary_group": (strategy.secondary_group, strategy.secondary_group > 1, "1"),
        "offload_parameters": (strategy.offload_parameters, strategy.offload_parameters != "none", "none"),
    }
    for name, (value, is_set, unset) in asked.items():
        if is_set:
            found = f"{value} goes with ZeRO stage 3 alone, and this is stage {strategy.stage}"
            yield Problem(f"parallelism.{name}", found, f"parallelism.zero_stage=3, or parallelism.{name}={unset}")


def groups_share_out_the_ranks(spec: RunSpec) -> Iterator[Problem]:
    """Groups of stage 3 have equally many ranks, and each rank is in one."""
    strategy = spec.parallelism
    sharers = _sharers(spec)
    for name, size in {"shard_group": strategy.shard_group, "secondary_group": strategy.secondary_group}.items():
        if size and sharers % size:
            found = f"{size} is no part of the {sharers} ranks that share out the batch"
            yield Problem(f"parallelism.{name}", found, f"parallelism.{name} of {_list(_divisors(sharers))}")


def secondary_groups_go_with(spec: RunSpec) -> Iterator[Problem]:
    """DeepSpeed makes groups of consecutive ranks of all there are, whatever else these are."""
    strategy, where = spec.parallelism, "parallelism.secondary_group"
    if strategy.secondary_group == 1:
        return
    if strategy.tensor * strategy.pipeline > 1:
        found = f"{strategy.secondary_group} neighbours would hold other parts of the model"
        fits = "parallelism.tensor=1 and parallelism.pipeline=1"
        yield Problem(where, found, f"{fits}, or parallelism.secondary_group=1")
    if strategy.shard_group:
        found = f"{strategy.secondary_group} with a shard_group, which keeps the weights near by already"
        yield Problem(where, found, "parallelism.secondary_group=1, or parallelism.shard_group=null")


def offload_goes_with(spec: RunSpec) -> Iterator[Problem]:
    """States in the CPUs' memory: with ZeRO alone, and with sequences, whose ranks are to DeepSpeed like any others."""
    strategy = spec.parallelism
    places = {"offload_optimizer": strategy.offload_optimizer, "offload_parameters": strategy.offload_parameters}
    used = [f"parallelism.{name}" for name, place in places.items() if place != "none"]
    if not used:
        return
    if strategy.stage == 0:
        fits = f"parallelism.zero_stage=1 or more, or {used[0]}=none"
        yield Problem(used[0], "without ZeRO (stage 0) DeepSpeed keeps all on the device", fits)
    others = {
        "tensor": (strategy.tensor, 1),
        "pipeline": (strategy.pipeline, 1),
        "expert": (strategy.expert, 1),
        "shard_group": (strategy.shard_group, None),
        "secondary_group": (strategy.secondary_group, 1),
    }
    for name, (value, unset) in others.items():
        if value != unset:
            found = f"with {name} {value} nobody has tried whether the numbers are right"
            fits = f"{used[0]}=none, or parallelism.{name}={'null' if unset is None else unset}"
            yield Problem(used[0], found, fits)


def disks_go_with(spec: RunSpec) -> Iterator[Problem]:
    """States on a disk of the node: DeepSpeed has them for stage 3 alone, and they need a place."""
    strategy = spec.parallelism
    if strategy.offload_optimizer != "nvme":
        return
    if strategy.stage not in (0, 3):  # of 0 another rule speaks
        found = f"nvme goes with ZeRO stage 3 alone, and this is stage {strategy.stage}"
        fits = "parallelism.zero_stage=3, or parallelism.offload_optimizer=cpu"
        yield Problem("parallelism.offload_optimizer", found, fits)
    path = strategy.nvme_path or ""
    if not path.startswith(("/", "$")):
        found = f"{strategy.nvme_path!r} is no folder on a disk of each node" if path else "has no value"
        yield Problem("parallelism.nvme_path", found, "parallelism.nvme_path=/an/absolute/path, or '$TMPDIR'")


def stages_have_experts(spec: RunSpec) -> Iterator[Problem]:
    """DeepSpeed's norm of the gradients has all stages take part in what is done for experts."""
    model, strategy = spec.model, spec.parallelism
    bounds = stage_bounds(model, strategy.pipeline, spec.train.sequence_length)
    if strategy.expert == 1 or model.moe is None or not bounds:
        return
    stages = [range(start, stop) for start, stop in pairwise(bounds)]
    without = [number for number, layers in enumerate(stages) if not any(map(model.has_experts, layers))]
    if without:
        found = f"{strategy.expert} ranks would share out experts, and stage {without[0]} of the pipeline has none"
        yield Problem("parallelism.expert", found, "parallelism.expert=1, or fewer stages with parallelism.pipeline")


def matrices_come_together(spec: RunSpec) -> Iterator[Problem]:
    """Muon works on whole matrices, which it puts together from what ZeRO has shared out."""
    strategy = spec.parallelism
    axes = {"tensor": strategy.tensor, "pipeline": strategy.pipeline, "expert": strategy.expert}
    others = [f"parallelism.{axis}={size}" for axis, size in axes.items() if size > 1]
    if strategy.offload_optimizer != "none":
        others.append(f"parallelism.offload_optimizer={strategy.offload_optimizer}")
    if spec.optimizer.muon and others:
        found = f"Muon puts matrices together from ZeRO's parts on the devices alone, and not with {', '.join(others)}"
        yield Problem("optimizer.muon", found, "parallelism=zero1, zero2, zero3 or ddp; or optimizer=adamw")


RULES: tuple[Rule, ...] = (
    heads_share_out,
    tensors_share_out,
    sequences_share_out,
    stages_have_layers,
    zero_leaves_the_pipeline_going,
    experts_share_out,
    experts_go_with,
    stages_have_experts,
    matrices_come_together,
    groups_are_of_stage_3,
    groups_share_out_the_ranks,
    secondary_groups_go_with,
    offload_goes_with,
    disks_go_with,
)


def layout_problems(spec: RunSpec) -> list[Problem]:
    """All that stands against the layout of a run."""
    return [problem for rule in RULES for problem in rule(spec)]


def _shared_out(where: str, size: int, **axes: int) -> Iterator[Problem]:
    """Something that the ranks of these axes together share out has to be a multiple of their number."""
    ranks, used = prod(axes.values()), {name: of for name, of in axes.items() if of > 1}
    if size % ranks == 0:
        return
    product = " x ".join(f"{name} {of}" for name, of in used.items())
    sizes = f"{size // ranks * ranks} or {(size // ranks + 1) * ranks}" if size > ranks else str(ranks)
    fewer = _list(number for number in range(1, ranks) if size % number == 0)
    fits = f"{where}={sizes}, or {' x '.join(f'parallelism.{name}' for name in used)} of {fewer}"
    yield Problem(where, f"{size} cannot be shared out in equal parts by {product}", fits)


def _sharers(spec: RunSpec) -> int:
    """Ranks that share out the batch, by sequences or inside them."""
    return spec.nodes * ranks_per_node(spec) // (spec.parallelism.tensor * spec.parallelism.pipeline)


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)
