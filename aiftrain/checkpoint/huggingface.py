"""Our model in Hugging Face's words: names and shapes of the weights, config.json, generation_config.json.

A model with `qk_norm` is Qwen3's architecture, with experts as well Qwen3-MoE's, one with a window Mistral's, any other
is Llama's. Their rotary
embedding pairs the two halves of a head as ours does, so the weights are cut into pieces and renamed, never permuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from aiftrain.errors import UserError
from aiftrain.run.model import ModelSpec
from aiftrain.run.shape import MoeSpec
from aiftrain.run.spec import RunSpec

# What the exported architectures share; `head_dim`, `qk_norm` and sizes are free.
_EXPORTED = {
    "positions": "rope",
    "rotary_fraction": 1.0,
    "nope_every": None,
    "global_every": None,
    "norm": "rms",
    "embedding_norm": False,
    "latent": None,
    "qkv_bias": False,
    "output_bias": False,
    "mlp": "swiglu",
    "mlp_bias": False,
}


@dataclass(frozen=True)
class Weight:
    """A Hugging Face weight: `shape` elements of our flattened parameter `source`, from element `start` on.

    `turned`: ours is stored as [in, out], theirs as [out, in].
    """

    key: str
    source: str
    shape: tuple[int, ...]
    start: int = 0
    turned: bool = False

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)


def check_exportable(model: ModelSpec) -> None:
    """UserError, with the keys that stand in the way, for a shape that none of the exported architectures has."""
    others = [f"{key}={getattr(model, key)}" for key, value in _EXPORTED.items() if getattr(model, key) != value]
    if model.moe and (not model.qk_norm or model.moe.shared_intermediate_size):
        others.append("moe without qk_norm" if not model.qk_norm else "moe.shared_intermediate_size")
    if model.sliding_window and model.qk_norm:
        others.append("sliding_window with qk_norm")
    if others:
        raise UserError(
            f"model {model.name} cannot be exported: Hugging Face's Llama, Mistral, Qwen3 and Qwen3-MoE are what the "
            f"export knows, and they have no {', no '.join(others)}"
        )


def weights(model: ModelSpec) -> Iterator[Weight]:
    """All weights, in the order of the forward pass."""
    embedding = (model.vocab_size, model.hidden_size)
    yield Weight("model.embed_tokens.weight", "embed.weight", embedding)
    for layer in range(model.num_layers):
        yield from _attention(model, f"model.layers.{layer}", f"layers.{layer}")
        if model.moe and model.has_experts(layer):
            yield from _experts(model, model.moe, f"model.layers.{layer}.mlp", f"layers.{layer}.mlp")
        else:
            yield from _mlp(model, f"model.layers.{layer}.mlp", f"layers.{layer}.mlp")
    yield Weight("model.norm.weight", "norm.weight", (model.hidden_size,))
    if not model.tie_embeddings:
        yield Weight("lm_head.weight", "head.weight", embedding)


def _attention(model: ModelSpec, theirs: str, ours: str) -> Iterator[Weight]:
    hidden = model.hidden_size
    attention = {"q_proj": model.query_size, "k_proj": model.kv_size, "v_proj": model.kv_size}
    yield Weight(f"{theirs}.input_layernorm.weight", f"{ours}.attention_norm.weight", (hidden,))
    yield from _stacked(f"{theirs}.self_attn", f"{ours}.attention.qkv.weight", attention, hidden)
    if model.qk_norm:
        for name, source in {"q_norm": "query_norm", "k_norm": "key_norm"}.items():
            yield Weight(f"{theirs}.self_attn.{name}.weight", f"{ours}.attention.{source}.weight", (model.head_size,))
    output = f"{ours}.attention.output.weight"
    yield Weight(f"{theirs}.self_attn.o_proj.weight", output, (hidden, model.query_size), turned=True)
    yield Weight(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp_norm.weight", (hidden,))


def _mlp(model: ModelSpec, theirs: str, ours: str) -> Iterator[Weight]:
    hidden, inner = model.hidden_size, model.intermediate_size
    yield from _stacked(theirs, f"{ours}.gate_up.weight", {"gate_proj": inner, "up_proj": inner}, hidden)
    yield Weight(f"{theirs}.down_proj.weight", f"{ours}.down.weight", (hidden, inner), turned=True)


def _experts(model: ModelSpec, moe: MoeSpec, theirs: str, ours: str) -> Iterator[Weight]:
    hidden, inner = model.hidden_size, moe.expert_intermediate_size
    yield Weight(f"{theirs}.gate.weight", f"{ours}.router", (moe.num_experts, hidden))
    for expert in range(moe.num_experts):
        name, place = f"{theirs}.experts.{expert}", expert * inner * hidden
        yield from _stacked(name, f"{ours}.up", {"gate_proj": inner, "up_proj": inner}, hidden, start=2 * place)
        yield Weight(f"{name}.down_proj.weight", f"{ours}.down", (hidden, inner), place, turned=True)


def _stacked(theirs: str, source: str, rows: dict[str, int], columns: int, start: int = 0) -> Iterator[Weight]:
    """Matrices that we keep as one, below each other, from element `start` on."""
    for name, count in rows.items():
        yield Weight(f"{theirs}.{name}.weight", source, (count, columns), start)
        start += count * columns


def config(spec: RunSpec, eos_id: int, step: int = 0) -> dict[str, object]:
    """config.json of the weights after `step` steps.

    The rotary base and the type of the weights stand in it under their names in 4.x and 5.x.
    """
    model, phase = spec.model, spec.timeline.after(step)
    name, specific = architecture(model)
    return {
        "architectures": [name],
        **specific,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": phase.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": phase.rope_theta},
        "max_position_embeddings": phase.sequence_length,
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": None,  # documents have an end and no token at their beginning
        "eos_token_id": eos_id,
        "use_cache": True,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def architecture(model: ModelSpec) -> tuple[str, dict[str, object]]:
    """The class of transformers that computes this model, and the keys that only its configuration has."""
    if model.moe:
        return "Qwen3MoeForCausalLM", {"model_type": "qwen3_moe", "attention_bias": False} | _routing(model.moe)
    if model.qk_norm:
        return "Qwen3ForCausalLM", {"model_type": "qwen3", "attention_bias": False, "use_sliding_window": False}
    if model.sliding_window or model.hidden_size % model.num_heads:
        # LlamaConfig of transformers 5 refuses heads that do not divide; Mistral without a window computes the same
        return "MistralForCausalLM", {"model_type": "mistral", "sliding_window": model.sliding_window}
    return "LlamaForCausalLM", {"model_type": "llama", "attention_bias": False, "mlp_bias": False}


def _routing(moe: MoeSpec) -> dict[str, object]:
    return {
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.experts_per_token,
        "moe_intermediate_size": moe.expert_intermediate_size,
        "norm_topk_prob": True,
        "decoder_sparse_step": moe.every,
        "mlp_only_layers": list(range(moe.dense_layers)),
        "router_aux_loss_coef": moe.balance_loss,
        "use_sliding_window": False,
    }


def generation_config(eos_id: int) -> dict[str, object]:
    """generation_config.json: where a text ends, and nothing about taste."""
    return {"bos_token_id": None, "eos_token_id": eos_id, "pad_token_id": eos_id}
