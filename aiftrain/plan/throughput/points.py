"""From a row of a table to what the time of a step depends on: the machine, the model, the layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from pydantic import ValidationError

from aiftrain.plan.engine_traits import EngineTraits
from aiftrain.plan.groups import Groups
from aiftrain.plan.published_traits import traits_of
from aiftrain.plan.shapes import find
from aiftrain.plan.throughput.constants import Calibration, Stack
from aiftrain.plan.throughput.step import Setting, Shape
from aiftrain.plan.throughput.table import CannotSay, Cells
from aiftrain.run.layout import ParallelLayout
from aiftrain.run.machine import Hardware
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import Recompute
from aiftrain.shipped import conf_dir

_TOKENS_PER_DEVICE = 65_536  # of a global batch, where a table does not state it ...
_MOST_TOKENS = 4_194_304  # ... and no more than this in all
_NO_PRETRAINING = re.compile("lora|peft", re.IGNORECASE)
_RECOMPUTE: dict[Recompute, str] = {
    "none": "none|no|off|false",
    "selective": "selective|attention|core",
    "full": "full|every|yes|on|true",
}
_SPARSE = re.compile(r"moe|\bA\d+B|\d+x\d+", re.IGNORECASE)  # names of mixtures of experts


@dataclass(frozen=True)
class Point:
    """A row of a table as the planner sees it, and what was assumed for empty cells.

    Where a row does not say what is computed again the setting has "none"; where it says nothing of ZeRO, what its
    software does unless told otherwise.
    """

    id: str
    setting: Setting
    traits: EngineTraits
    assumed: tuple[str, ...]
    states_recompute: bool
    states_zero: bool


def point_of(row: Mapping[str, str], calibration: Calibration) -> Point:
    """What a row describes. Raises CannotSay."""
    cells = Cells(row)
    hardware = hardware_of(cells.text("hardware"))
    stack = calibration.stack(cells.text("software")).with_notes(cells.text("notes"))
    try:
        model = _model(cells, stack)
    except ValidationError as error:
        raise CannotSay(f"the shape cannot be: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    length = cells.whole("seq") or cells.assume("sequences of 4,096 tokens", 4096)
    setting = Setting(
        shape=Shape.of(model),
        layout=_layout(cells, hardware, model, length, stack),
        hardware=hardware,
        sequence_length=length,
        precision=_precision(cells, hardware),
        constants=calibration.constants,
        stack=stack,
    )
    return Point(
        cells.text("id"),
        setting,
        traits_of(cells.text("software"), cells.text("notes")),
        tuple(cells.assumed),
        states_recompute=_recompute(cells.text("recompute")) is not None,
        states_zero=bool(cells.text("zero")),
    )


@cache
def hardware_of(name: str) -> Hardware:
    """The node behind what a table calls the machine. Raises CannotSay."""
    for cluster in _clusters():
        if re.search(cluster["pattern"], name, re.IGNORECASE):
            profile = Groups().read("hardware", cluster["hardware"])
            return Hardware.model_validate(profile | cluster.get("node", {}))
    raise CannotSay(f"no hardware profile is known for '{name}'" if name else "the hardware is not stated")


@cache
def _clusters() -> list[dict[str, Any]]:
    clusters: list[dict[str, Any]] = yaml.safe_load((conf_dir() / "clusters.yaml").read_text(encoding="utf-8"))
    return clusters


def _model(cells: Cells, stack: Stack) -> ModelSpec:
    """The shape that a row states, else that of the model it names. Raises CannotSay."""
    name = cells.text("model")
    if _NO_PRETRAINING.search(name):
        raise CannotSay("adapters are trained here, not the model")
    known = find(name)
    vocabulary = cells.whole("vocab") or stack.vocabulary
    layers, hidden, heads = (cells.whole(key) for key in ("layers", "hidden", "heads"))
    if layers is None or hidden is None or heads is None:
        return known or _guessed(cells)
    if known is not None and (known.num_layers, known.hidden_size) == (layers, hidden):
        return _as_stated(cells, known, vocabulary)
    return _stated(cells, vocabulary, layers, hidden, heads)


def _as_stated(cells: Cells, known: ModelSpec, vocabulary: int | None) -> ModelSpec:
    """A known model with what a row says of it otherwise."""
    stated = {"vocab_size": vocabulary, "num_kv_heads": cells.whole("kv_heads")}
    if known.moe is None:  # of a mixture of experts tables state the width of one expert
        stated["intermediate_size"] = cells.whole("ffn")
    differs = {key: value for key, value in stated.items() if value not in (None, getattr(known, key))}
    if not differs:
        return known
    return ModelSpec.model_validate(known.model_dump() | differs | {"published_parameters": None})


def _stated(cells: Cells, vocabulary: int | None, layers: int, hidden: int, heads: int) -> ModelSpec:
    name = cells.text("model")
    gated = "llama" in name.lower()
    return ModelSpec(
        name=name,
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=cells.whole("kv_heads") or heads,
        head_dim=None if hidden % heads == 0 else -(-hidden // heads // 2) * 2,
        intermediate_size=cells.whole("ffn") or (int(8 * hidden / 3) if gated else 4 * hidden),
        vocab_size=vocabulary or cells.assume("a vocabulary of 51,200", 51200),
        mlp="swiglu" if gated else "gelu",
        tie_embeddings=not gated,
    )


def _guessed(cells: Cells) -> ModelSpec:
    """A dense model of as many parameters, as wide for its depth as GPT-3 is: 128 of width a layer."""
    name, billions = cells.text("model"), cells.number("params_b")
    if not name:
        raise CannotSay("the model is not stated")
    if billions is None or _SPARSE.search(name):
        raise CannotSay(f"the shape of '{name}' is not stated and not known")
    layers = max(1, round((billions * 1e9 / (12 * 128**2)) ** (1 / 3)))
    cells.assume(f"{layers} layers of width {128 * layers}", layers)
    return ModelSpec(
        name=name,
        num_layers=layers,
        hidden_size=128 * layers,
        num_heads=layers,
        num_kv_heads=layers,
        intermediate_size=512 * layers,
        vocab_size=51200,
        mlp="gelu",
        tie_embeddings=True,
    )


def _layout(cells: Cells, hardware: Hardware, model: ModelSpec, length: int, stack: Stack) -> ParallelLayout:
    world = cells.whole("gpus")
    if world is None:
        raise CannotSay("the number of GPUs is not stated")
    tensor, pipeline, context = (_parts(cells, key) for key in ("tp", "pp", "cp_sp"))
    data = world // (tensor * pipeline * context)
    if data * tensor * pipeline * context != world:
        raise CannotSay(f"{world} GPUs are no multiple of tp {tensor} x pp {pipeline} x cp {context}")
    _check_shares(model, tensor, pipeline)
    micro = cells.whole("micro_batch") or cells.assume("micro-batches of 1", 1)
    sharding = cells.text("zero")
    return ParallelLayout(
        nodes=-(-world // hardware.devices_per_node),
        ranks_per_node=min(world, hardware.devices_per_node),
        world_size=world,
        data_parallel=data,
        zero_stage=_zero_stage(sharding, stack),
        micro_batch=micro,
        accumulation=_accumulation(cells, world, data, micro, length),
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1 and _sequence_parallel(cells.text("cp_sp"), stack),
        pipeline_parallel=pipeline,
        virtual_stages=_virtual_stages(cells, model, pipeline, stack),
        context_parallel=context,
        expert_parallel=_expert_parallel(cells, model),
        shard_group=hardware.devices_per_node if "hybrid" in sharding and data > hardware.devices_per_node else None,
        recompute=_recompute(cells.text("recompute")) or "none",
    )


def _precision(cells: Cells, hardware: Hardware) -> str:
    stated = cells.text("precision").lower()
    if stated == "bf16" and not hardware.bf16:
        raise CannotSay(f"{hardware.name} has no bf16")
    if stated == "fp32" and hardware.kind == "cuda" and hardware.bf16:
        return cells.assume("fp32 by way of TF32 products", "tf32")
    return stated or ("bf16" if hardware.bf16 else "fp16")


def _parts(cells: Cells, key: str) -> int:
    """Ranks along an axis, 1 where nothing is stated. Tables also say SP=TP where context parallelism stands."""
    if key == "cp_sp" and cells.text(key).startswith("SP"):
        return 1
    return cells.whole(key) or 1


def _check_shares(model: ModelSpec, tensor: int, pipeline: int) -> None:
    if model.num_heads % tensor:
        raise CannotSay(f"tp {tensor} does not divide the {model.num_heads} heads of {model.name}")
    if pipeline > model.num_layers:
        raise CannotSay(f"pp {pipeline} is more than the {model.num_layers} layers of {model.name}")


def _accumulation(cells: Cells, world: int, data: int, micro: int, length: int) -> int:
    """Micro-batches of each rank in a step."""
    batch = cells.whole("global_batch")
    if batch is None:
        tokens = min(_MOST_TOKENS, world * _TOKENS_PER_DEVICE)
        count = max(1, round(tokens / length / (data * micro)))
        return cells.assume(f"a global batch of {count * data * micro:,} sequences", count)
    if batch < data * micro:
        raise CannotSay(f"a global batch of {batch} gives not every one of {data} replicas a micro-batch of {micro}")
    return max(1, round(batch / (data * micro)))


def _zero_stage(word: str, stack: Stack) -> int:
    """The stage out of 2, 3 or 3-hybrid. Raises CannotSay."""
    if word in ("", "none"):
        return 0 if word else stack.zero_stage
    if word[0] not in "0123":
        raise CannotSay(f"zero is '{word}': a stage from 0 to 3 is expected")
    return int(word[0])


def _expert_parallel(cells: Cells, model: ModelSpec) -> int:
    stated = cells.whole("ep") or 1
    if model.moe and stated > model.moe.num_experts:
        raise CannotSay(f"ep {stated} is more than the {model.moe.num_experts} experts of {model.name}")
    return stated


def _virtual_stages(cells: Cells, model: ModelSpec, pipeline: int, stack: Stack) -> int:
    stated = cells.whole("vpp")
    if pipeline == 1 or stated:
        return stated or 1
    return cells.assume("an interleaved pipeline", max(1, model.num_layers // pipeline)) if stack.interleaves else 1


def _sequence_parallel(word: str, stack: Stack) -> bool:
    return word == "SP=TP" or (stack.sequence_parallel and word != "SP off")


def _recompute(word: str) -> Recompute | None:
    """The mode that a table's word means; None where it means none of them."""
    return next((mode for mode, pattern in _RECOMPUTE.items() if re.match(pattern, word, re.IGNORECASE)), None)
