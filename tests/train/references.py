"""Models of transformers beside the decoder: how each architecture's weights are named there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aiftrain.run.model import ModelSpec
from aiftrain.train.model import Decoder

State = dict[str, Tensor]

SIZES = {"vocab_size": 101, "hidden_size": 32, "num_heads": 4}
LAYERS, LENGTH = 3, 24


def spec(**changes: object) -> ModelSpec:
    base: dict[str, object] = {"name": "tiny", "intermediate_size": 48, "num_layers": LAYERS, "num_kv_heads": 2}
    return ModelSpec.model_validate(SIZES | base | changes)


def config(**changes: object) -> dict[str, Any]:
    """The keys that most configurations of transformers share, at the sizes of `spec`."""
    base = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    return base | special | {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5} | changes


def shaken(model: Any) -> Any:
    """All weights of a model drawn anew, norms and biases among them, so that none is one or zero by chance."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(0, 0.1, generator=generator)
            parameter.copy_(1 + noise if "norm" in name and name.endswith("weight") else noise)
    return model.eval()


def decoder(shape: ModelSpec, state: State) -> Decoder:
    """The decoder with exactly the weights of `state`."""
    model = Decoder(shape, sequence_length=LENGTH).eval()
    model.load_state_dict(state)
    return model


def from_llama(theirs: State, shape: ModelSpec) -> State:
    """Llama, Mixtral, Qwen3-MoE, Apertus, Nemotron and DeepSeek-V3: the same names but for what each adds."""
    ours = {"embed.weight": theirs["model.embed_tokens.weight"]}
    ours |= _norm(theirs, "model.norm", "norm")
    if not shape.tie_embeddings:
        ours["head.weight"] = theirs["lm_head.weight"]
    for layer in range(shape.num_layers):
        part = {key.removeprefix(f"model.layers.{layer}."): value for key, value in theirs.items()}
        ours |= {f"layers.{layer}.{key}": value for key, value in _layer(part, shape).items()}
    return ours | ({"head.weight": ours["embed.weight"]} if shape.tie_embeddings else {})


def _layer(part: State, shape: ModelSpec) -> State:
    first, second = (
        ("attention", "feedforward") if "attention_layernorm.weight" in part else ("input", "post_attention")
    )
    ours = _norm(part, f"{first}_layernorm", "attention_norm") | _norm(part, f"{second}_layernorm", "mlp_norm")
    attention = _latent(part) if shape.latent else _grouped(part, shape)
    ours |= {f"attention.{key}": value for key, value in attention.items()}
    ours |= {f"mlp.{key}": value for key, value in _mlp(part, shape).items()}
    return ours


def _grouped(part: State, shape: ModelSpec) -> State:
    ours = {}
    for kind in ("weight", "bias"):
        if f"self_attn.q_proj.{kind}" in part:
            ours[f"qkv.{kind}"] = torch.cat([part[f"self_attn.{name}_proj.{kind}"] for name in "qkv"])
        if f"self_attn.o_proj.{kind}" in part:
            ours[f"output.{kind}"] = part[f"self_attn.o_proj.{kind}"].T
    if shape.qk_norm:
        ours |= _norm(part, "self_attn.q_norm", "query_norm") | _norm(part, "self_attn.k_norm", "key_norm")
    return ours


def _latent(part: State) -> State:
    names = {
        "query_down": "q_a_proj",
        "query_norm": "q_a_layernorm",
        "query": "q_b_proj",
        "down": "kv_a_proj_with_mqa",
        "down_norm": "kv_a_layernorm",
        "up": "kv_b_proj",
        "output": "o_proj",
    }
    ours = {f"{ours}.weight": part[f"self_attn.{theirs}.weight"] for ours, theirs in names.items()}
    return ours | {"output.weight": ours["output.weight"].T}


def _mlp(part: State, shape: ModelSpec) -> State:
    if shape.moe:
        names = {"router": "gate.weight", "up": "experts.gate_up_proj", "down": "experts.down_proj"}
        ours = {ours: part[f"mlp.{theirs}"] for ours, theirs in names.items()}
        return ours | {"down": ours["down"].mT}
    ours = {"down.weight": part["mlp.down_proj.weight"].T}
    if shape.gated:
        return ours | {"gate_up.weight": torch.cat([part["mlp.gate_proj.weight"], part["mlp.up_proj.weight"]])}
    ours["up.weight"] = part["mlp.up_proj.weight"]
    if shape.mlp == "xielu":
        ours |= {"activation.positive": part["mlp.act_fn.alpha_p"], "activation.negative": part["mlp.act_fn.alpha_n"]}
    return ours


def _norm(theirs: State, name: str, ours: str) -> State:
    return {f"{ours}.{kind}": theirs[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in theirs}


def from_bloom(theirs: State, shape: ModelSpec) -> State:
    """BLOOM keeps a head's query, key and value beside each other."""
    names = {
        "attention_norm": "input_layernorm",
        "attention.output": "self_attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
    }
    ours = {"embed.weight": theirs["transformer.word_embeddings.weight"]}
    ours["head.weight"] = ours["embed.weight"]
    ours |= _norm(theirs, "transformer.word_embeddings_layernorm", "embed_norm")
    ours |= _norm(theirs, "transformer.ln_f", "norm")
    for layer in range(shape.num_layers):
        here = f"transformer.h.{layer}"
        for name, other in names.items():
            ours |= _norm(theirs, f"{here}.{other}", f"layers.{layer}.{name}")
        for name in ("attention.output", "mlp.down"):
            ours[f"layers.{layer}.{name}.weight"] = ours[f"layers.{layer}.{name}.weight"].T
        for kind in ("weight", "bias"):
            mixed = theirs[f"{here}.self_attention.query_key_value.{kind}"]
            heads = mixed.unflatten(0, (shape.num_heads, 3, shape.head_size)).transpose(0, 1)
            ours[f"layers.{layer}.attention.qkv.{kind}"] = heads.flatten(0, 2)
    return ours


def from_gpt2(theirs: State, shape: ModelSpec) -> State:
    """GPT-2 keeps its matrices transposed."""
    names = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj"}
    names |= {"mlp_norm": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    ours = {"embed.weight": theirs["transformer.wte.weight"], "positions.weight": theirs["transformer.wpe.weight"]}
    ours["head.weight"] = ours["embed.weight"]
    ours |= _norm(theirs, "transformer.ln_f", "norm")
    for layer in range(shape.num_layers):
        for name, other in names.items():
            found = _norm(theirs, f"transformer.h.{layer}.{other}", f"layers.{layer}.{name}")
            inward = name in ("attention.qkv", "mlp.up")  # of ours, those are stored as [out, in]
            ours |= {key: value.T if inward and value.dim() == 2 else value for key, value in found.items()}
    return ours
