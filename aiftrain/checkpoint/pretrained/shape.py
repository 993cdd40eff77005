"""The shape that a config.json of Hugging Face describes, in our words: the inverse of checkpoint.huggingface.

What none of our models can compute is refused: weights that are loaded into another computation than they were trained
in would seem to work, and be worse for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiftrain.errors import UserError
from aiftrain.run.base import Strict
from aiftrain.run.model import ModelSpec

KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
}
_ROUTING = {
    "num_experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "expert_intermediate_size": "moe_intermediate_size",
}
# A run decides on these for itself, but for the last three, which are compared in ways of their own.
_FREE = {"name", "init_std", "z_loss", "published_parameters", "source", "vocab_size", "head_dim", "moe"}
_FREE_OF_ROUTING = {"balance_loss", "router_z_loss", "capacity_factor"}


def shape(config: dict[str, Any]) -> dict[str, Any]:
    """Keys of `model` and their values; what is not in it has its default. UserError with all that is in the way."""
    config = {"num_experts": config.get("num_local_experts")} | config  # its name in transformers 5
    if reasons := list(_unknown(config)):
        raise UserError(f"config.json describes a model that aiftrain does not know: {'; '.join(reasons)}")
    heads = config["num_attention_heads"]
    keys: dict[str, Any] = {ours: config[theirs] for ours, theirs in _SIZES.items()}
    keys |= {
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim"),
        "rope_theta": _rope(config).get("rope_theta", config.get("rope_theta", 10_000.0)),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "qk_norm": _kind(config).startswith("Qwen3"),
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        "init_std": config.get("initializer_range", 0.02),
        "sliding_window": config.get("sliding_window") if _kind(config) == "MistralForCausalLM" else None,
    }
    return keys | {"moe": _moe(config)} if _has_experts(config) else keys


def differences(model: ModelSpec, theirs: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    """A key of `model`, its value and what `theirs`, a `shape`, has: all that differ. A vocabulary may be larger."""
    other = ModelSpec.model_validate({**theirs, "name": model.name})
    if model.vocab_size < other.vocab_size:
        yield "vocab_size", model.vocab_size, other.vocab_size
    if model.head_size != other.head_size:
        yield "head_dim", model.head_size, other.head_size
    yield from _unlike(model, other, _FREE)
    yield from _routing_differences(model, other)


def _routing_differences(model: ModelSpec, other: ModelSpec) -> Iterator[tuple[str, object, object]]:
    if not model.moe or not other.moe:
        if model.moe != other.moe:
            yield "moe", model.moe, other.moe
        return
    for key, ours, theirs in _unlike(model.moe, other.moe, _FREE_OF_ROUTING):
        yield f"moe.{key}", ours, theirs


def _unlike(one: Strict, other: Strict, free: set[str]) -> Iterator[tuple[str, object, object]]:
    for key in type(one).model_fields:
        if key not in free and getattr(one, key) != getattr(other, key):
            yield key, getattr(one, key), getattr(other, key)


def _unknown(config: dict[str, Any]) -> Iterator[str]:
    """Everything that our models do not do."""
    if _kind(config) not in KNOWN:
        yield f"architecture {_kind(config)}; known are {', '.join(KNOWN)}"
        return
    wanted = {**_SIZES, **(_ROUTING if _has_experts(config) else {})}
    yield from (f"{key} is no number" for key in wanted.values() if not isinstance(config.get(key), int))
    if config.get("hidden_act", "silu") != "silu":
        yield f"hidden_act={config['hidden_act']}"
    yield from (f"{key}=true" for key in ("attention_bias", "mlp_bias", "use_sliding_window") if config.get(key))
    kind = _rope(config).get("rope_type", _rope(config).get("type", "default"))
    if kind != "default":
        yield f"rotary positions of type {kind}, where only default is known"
    if _rope(config).get("partial_rotary_factor", config.get("partial_rotary_factor", 1)) not in (None, 1):
        yield "partial_rotary_factor"
    if "quantization_config" in config:
        yield "quantization_config: weights that are not numbers as they stand"
    if len(set(config.get("layer_types") or ["all"])) > 1:
        yield "layer_types that differ from layer to layer"
    if _has_experts(config):
        yield from _unknown_routing(config)


def _unknown_routing(config: dict[str, Any]) -> Iterator[str]:
    dense = config.get("mlp_only_layers") or []
    if dense != list(range(len(dense))):
        yield f"mlp_only_layers={dense}, which are not the first ones"
    if not config.get("norm_topk_prob", False):
        yield "norm_topk_prob=false"


def _moe(config: dict[str, Any]) -> dict[str, Any]:
    keys = {ours: config[theirs] for ours, theirs in _ROUTING.items()}
    dense, every = len(config.get("mlp_only_layers") or []), config.get("decoder_sparse_step", 1)
    return keys | {"dense_layers": dense, "every": every, "balance_loss": config.get("router_aux_loss_coef", 0.001)}


def _kind(config: dict[str, Any]) -> str:
    names = config.get("architectures") or ["none"]
    return str(names[0])


def _has_experts(config: dict[str, Any]) -> bool:
    return _kind(config) == "Qwen3MoeForCausalLM"


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of transformers 5, `rope_scaling` of 4.x."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}
