"""A run folder as training leaves it, with random weights and a tokenizer of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece
import tokenizers
from numpy.typing import NDArray

from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.described import model_at
from aiftrain.checkpoint.export import Export, export
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.places import Home
from aiftrain.checkpoint.shards import Fragment, shard_name, write_shard
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.run.folder import RunFolder
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import RunSpec

Weights = dict[str, NDArray[np.float32]]

LLAMA = {
    "name": "test", "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_layers": 2, "num_heads": 4,
    "num_kv_heads": 2,
}  # fmt: skip


def parameter_shapes(model: ModelSpec) -> dict[str, list[int]]:
    """The parameters of our model, as aiftrain.train.model names them."""
    hidden, query, kv = model.hidden_size, model.query_size, model.kv_size
    shapes = {"embed.weight": [model.vocab_size, hidden], "norm.weight": [hidden]}
    for i in range(model.num_layers):
        layer = {
            "attention_norm": [hidden], "attention.qkv": [query + 2 * kv, hidden], "attention.output": [query, hidden],
            "mlp_norm": [hidden], "mlp.gate_up": [2 * model.intermediate_size, hidden],
            "mlp.down": [model.intermediate_size, hidden],
        }  # fmt: skip
        if model.qk_norm:
            layer |= {"attention.query_norm": [model.head_size], "attention.key_norm": [model.head_size]}
        shapes |= {f"layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes if model.tie_embeddings else shapes | {"head.weight": [model.vocab_size, hidden]}


def random_weights(model: ModelSpec) -> Weights:
    """Far from the values of a fresh model, so that every weight shows in the logits."""
    dice = np.random.default_rng(0)
    return {
        name: dice.normal(float("norm" in name), 0.3, shape).astype(np.float32)
        for name, shape in parameter_shapes(model).items()
    }


def save(folder: RunFolder, spec: RunSpec, weights: Weights, make_manifest: Callable[..., Manifest]) -> None:
    """A checkpoint of `weights`, cut between two ranks; the average of each is one more than it."""
    catalog = Catalog(folder.checkpoints)
    parts = catalog.begin(20)
    halves: list[list[Fragment]] = [[], []]
    for name, array in weights.items():
        cut = array.size * 2 // 7
        flat = array.reshape(-1)
        for half, start, part in ((halves[0], 0, flat[:cut]), (halves[1], cut, flat[cut:])):
            half.append(Fragment(name, start, {"weight": part, "ema": part + 1}))
    files = [write_shard(parts / shard_name(rank), half, {}) for rank, half in enumerate(halves)]
    shapes = {name: list(array.shape) for name, array in weights.items()}
    catalog.commit(make_manifest(step=20, identity=spec.identity(), shapes=shapes, files=files))


def byte_tokenizer(folder: Path) -> Path:
    """Byte-level, 257 entries, ending documents with 256."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "bytes.json"))
    return folder / "bytes.json"


def corpus(tokenizer: Path) -> PreparedCorpus:
    described = PreparedTokenizer(path=tokenizer, digest="0" * 32, vocab_size=257, eos_id=_eos_id(tokenizer))
    return PreparedCorpus(name="test", tokenizer=described, sources={}, unigram_loss=5.0, digest="0" * 32)


def _eos_id(tokenizer: Path) -> int:
    if tokenizer.suffix == ".json":
        return 256
    return int(sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).eos_id())


def export_run(
    folder: RunFolder, out: Path, step: int | None = None, shard_gb: float = 5.0, *, averaged: bool = False
) -> Export:
    """What `checkpoints export` does with a run folder."""
    return export(model_at(Home.of(folder), step), out, shard_gb, averaged=averaged)
