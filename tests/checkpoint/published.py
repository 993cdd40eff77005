"""Models as they are published: made by transformers, with weights drawn at random, and saved by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from aiftrain.checkpoint.pretrained.folder import PretrainedFolder
from aiftrain.checkpoint.pretrained.shape import shape
from aiftrain.run.model import ModelSpec
from aiftrain.train.model import Decoder
from tests.train.references import LENGTH, config, shaken

MOE = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True,
    "mlp_only_layers": [0],
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "head_dim": 10}),
    "mistral with a window": ("Mistral", {"sliding_window": 5}),
    "qwen3": ("Qwen3", {"head_dim": 12}),
    "qwen3 of experts": ("Qwen3Moe", MOE | {"head_dim": 8}),
}


def publish(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
    """A folder with a random model of that kind, in files of at most `shard`, and its tokenizer."""
    name, changes = KINDS[kind]
    configuration = getattr(transformers, f"{name}Config")(**config(**changes))
    model = shaken(getattr(transformers, f"{name}ForCausalLM")(configuration)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder / "tokenizer.json")
    return folder


def save_tokenizer(file: Path, *more: str, moved: bool = False) -> Path:
    """Letters, some pairs of them, an end of document; then `more`. `moved`: two tokens change places."""
    words = [*"abcdefgh", "ab", "cd", "<|endoftext|>", *more]
    if moved:
        words[0], words[1] = words[1], words[0]
    merges = [("a", "b"), ("c", "d")]
    model = tokenizers.models.BPE({word: number for number, word in enumerate(words)}, merges)
    file.parent.mkdir(exist_ok=True)
    tokenizers.Tokenizer(model).save(str(file))
    return file


def spec_of(folder: Path, **changes: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "test", **shape(PretrainedFolder(folder).config()), **changes})


Read = Callable[[str, int, int], Any]


def filled(model: ModelSpec, read: Read) -> Decoder:
    """A decoder with the weights that `read` gives of each parameter."""
    decoder = Decoder(model, sequence_length=LENGTH).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(torch.from_numpy(read(name, 0, parameter.numel())).view_as(parameter))
    return decoder


def logits_of(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """What transformers computes with the folder, in float32. tokens [length] -> [length, vocabulary]."""
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        answer: torch.Tensor = loaded.eval()(tokens[None]).logits[0]
    return answer
