"""Our model in Hugging Face's words: names and shapes of the weights, config.json, generation_config.json.

A model with `qk_norm` is Qwen3's architecture, any other is Llama's. Their rotary embedding pairs the two halves
of a head as ours does, so the weights are cut into pieces and renamed, never permuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import RunSpec


@dataclass(frozen=True)
class Weight:
    """A Hugging Face weight: `shape` elements of our flattened parameter `source`, from element `start` on."""

    key: str
    source: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)


def weights(model: ModelSpec) -> Iterator[Weight]:
    """All weights, in the order of the forward pass."""
    embedding = (model.vocab_size, model.hidden_size)
    yield Weight("model.embed_tokens.weight", "embed.weight", embedding)
    for layer in range(model.num_layers):
        yield from _layer(model, f"model.layers.{layer}", f"layers.{layer}")
    yield Weight("model.norm.weight", "norm.weight", (model.hidden_size,))
    if not model.tie_embeddings:
        yield Weight("lm_head.weight", "head.weight", embedding)


def _layer(model: ModelSpec, theirs: str, ours: str) -> Iterator[Weight]:
    hidden, inner = model.hidden_size, model.intermediate_size
    attention = {"q_proj": model.query_size, "k_proj": model.kv_size, "v_proj": model.kv_size}
    yield Weight(f"{theirs}.input_layernorm.weight", f"{ours}.attention_norm.weight", (hidden,))
    yield from _stacked(f"{theirs}.self_attn", f"{ours}.attention.qkv.weight", attention, hidden)
    if model.qk_norm:
        for name, source in {"q_norm": "query_norm", "k_norm": "key_norm"}.items():
            yield Weight(f"{theirs}.self_attn.{name}.weight", f"{ours}.attention.{source}.weight", (model.head_size,))
    yield Weight(f"{theirs}.self_attn.o_proj.weight", f"{ours}.attention.output.weight", (hidden, model.query_size))
    yield Weight(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp_norm.weight", (hidden,))
    yield from _stacked(f"{theirs}.mlp", f"{ours}.mlp.gate_up.weight", {"gate_proj": inner, "up_proj": inner}, hidden)
    yield Weight(f"{theirs}.mlp.down_proj.weight", f"{ours}.mlp.down.weight", (hidden, inner))


def _stacked(theirs: str, source: str, rows: dict[str, int], columns: int) -> Iterator[Weight]:
    """Matrices that we keep as one, below each other."""
    start = 0
    for name, count in rows.items():
        yield Weight(f"{theirs}.{name}.weight", source, (count, columns), start)
        start += count * columns


def config(spec: RunSpec, eos_id: int) -> dict[str, object]:
    """config.json. The rotary base and the type of the weights stand in it under their names in 4.x and 5.x."""
    model = spec.model
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
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "max_position_embeddings": spec.train.sequence_length,
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
    if model.qk_norm:
        return "Qwen3ForCausalLM", {"model_type": "qwen3", "attention_bias": False, "use_sliding_window": False}
    if model.hidden_size % model.num_heads:
        # LlamaConfig of transformers 5 refuses this shape; Mistral without its window is the same computation
        return "MistralForCausalLM", {"model_type": "mistral", "sliding_window": None}
    return "LlamaForCausalLM", {"model_type": "llama", "attention_bias": False, "mlp_bias": False}


def generation_config(eos_id: int) -> dict[str, object]:
    """generation_config.json: where a text ends, and nothing about taste."""
    return {"bos_token_id": None, "eos_token_id": eos_id, "pad_token_id": eos_id}
