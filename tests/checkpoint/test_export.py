"""An exported model loads in transformers and computes what the checkpoint's weights say."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import aiftrain
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.shards import shard_name
from aiftrain.errors import DamagedError, MachineError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.model import ModelSpec
from tests.checkpoint.reference_decoder import logits
from tests.checkpoint.run_to_export import (
    LLAMA,
    Weights,
    byte_tokenizer,
    corpus,
    export_run,
    parameter_shapes,
    random_weights,
    save,
)
from tests.conftest import small_spec

NoFileBeyond = Callable[[int], AbstractContextManager[None]]
MakeRun = Callable[..., tuple[RunFolder, Weights]]

SHAPES: dict[str, dict[str, Any]] = {
    "grouped-query": LLAMA,
    "one key head, tied": LLAMA | {"num_kv_heads": 1, "tie_embeddings": True},
    "all key heads, wide heads": LLAMA | {"num_kv_heads": 4, "head_dim": 16, "rope_theta": 5e5, "norm_eps": 1e-3},
    "qk-norm": LLAMA | {"qk_norm": True, "head_dim": 10},
    "qk-norm, tied, odd heads": LLAMA | {"qk_norm": True, "tie_embeddings": True, "num_heads": 3, "num_kv_heads": 3},
    "window": LLAMA | {"sliding_window": 7},
    "hidden size not a multiple of heads": LLAMA | {"num_heads": 5, "num_kv_heads": 5, "head_dim": 6},
}


@pytest.fixture
def make_run(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> MakeRun:
    """A run folder with a tokenizer and a checkpoint of random weights at step 20, cut between two ranks."""

    def make(tokenizer: Path | None = None, ema_decay: float | None = None, **model: Any) -> tuple[RunFolder, Weights]:
        optimizer = {"name": "adamw", "lr": 1e-3, "ema_decay": ema_decay}
        spec = small_spec(model=LLAMA | model, optimizer=optimizer)
        folder = RunFolder(tmp_path / "run")
        folder.write_json(folder.run_json, spec.model_dump(mode="json"))
        folder.write(folder.data_json, corpus(tokenizer or byte_tokenizer(tmp_path)).model_dump_json())
        weights = random_weights(spec.model)
        save(folder, spec, weights, make_manifest)
        return folder, weights

    return make


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_transformers_computes_the_same_logits(tmp_path: Path, make_run: MakeRun, shape: dict[str, Any]) -> None:
    folder, weights = make_run(**shape)
    exported = export_run(folder, tmp_path / "model")
    loaded: Any = AutoModelForCausalLM.from_pretrained(exported.folder, output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert model.dtype == torch.float32
    spec = folder.read_spec().model
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
    tokens = np.random.default_rng(1).integers(0, spec.vocab_size, 32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)[None]).logits[0].double().numpy()
    ours = logits(spec, weights, tokens)
    assert np.abs(ours).max() > 1, "the logits are too small to tell anything"
    assert np.abs(theirs - ours).max() < 1e-4


def test_the_folder_is_complete(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run(rope_theta=5e5)
    exported = export_run(folder, tmp_path / "model")
    assert exported.step == 20
    assert exported.files == {path.name: path.stat().st_size for path in exported.folder.iterdir()}
    assert exported.files.keys() == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((exported.folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e5
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert (config["max_position_embeddings"], config["eos_token_id"], config["bos_token_id"]) == (32, 256, None)
    assert GenerationConfig.from_pretrained(exported.folder).eos_token_id == 256


def test_the_model_card_states_facts_of_the_run(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    card = (export_run(folder, tmp_path / "model").folder / "README.md").read_text(encoding="utf-8")
    spec = folder.read_spec()
    for fact in (
        f"{spec.model.parameters:,}",
        "Step | 20 of 20",
        "28,672",
        "| de |  | 20,000 |",
        "0123456789ab",
        "Llama",
    ):
        assert fact in card


def test_the_average_is_exported_in_place_of_the_weights(tmp_path: Path, make_run: MakeRun) -> None:
    folder, weights = make_run(ema_decay=0.9)
    exported = export_run(folder, tmp_path / "model", averaged=True).folder
    averages = load_file(exported / "model.safetensors")
    assert np.array_equal(averages["model.norm.weight"], weights["norm.weight"] + 1)
    assert "moving average over steps (decay 0.9)" in (exported / "README.md").read_text(encoding="utf-8")


def test_a_run_without_an_average_exports_none(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"has no average .* optimizer\.ema_decay"):
        export_run(make_run()[0], tmp_path / "model", averaged=True)
    assert not (tmp_path / "model").exists()


def test_the_tokenizer_loads_and_encodes_alike(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    loaded = AutoTokenizer.from_pretrained(export_run(folder, tmp_path / "model").folder)
    text = "Þetta er prófun, ένα τεστ\n\tčeština  !"
    assert loaded.encode(text) == tokenizers.Tokenizer.from_file(str(tmp_path / "bytes.json")).encode(text).ids
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.eos_token_id == 256


def test_a_sentencepiece_tokenizer_goes_along(tmp_path: Path, make_run: MakeRun) -> None:
    lines = [f"der schnelle braune Fuchs {i} springt über den faulen Hund" for i in range(99)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "pieces"), vocab_size=300, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    folder, _ = make_run(tokenizer=tmp_path / "pieces.model")
    exported = export_run(folder, tmp_path / "model")
    assert (exported.folder / "tokenizer.model").read_bytes() == (tmp_path / "pieces.model").read_bytes()
    loaded = AutoTokenizer.from_pretrained(exported.folder)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "pieces.model"))
    assert loaded.encode("Der Hund über  Þ") == pieces.encode("Der Hund über  Þ")
    assert loaded.eos_token_id == pieces.eos_id()


def test_weights_are_split_into_files_of_the_given_size(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    whole = AutoModelForCausalLM.from_pretrained(export_run(folder, tmp_path / "whole").folder)
    exported = export_run(folder, tmp_path / "split", shard_gb=32e3 / 1e9)
    shards = {name for name in exported.files if name.endswith(".safetensors")}
    index = json.loads((exported.folder / "model.safetensors.index.json").read_text())
    assert len(shards) > 2 and shards == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == 4 * folder.read_spec().model.parameters
    assert all(exported.files[name] < 34e3 for name in shards)
    split = AutoModelForCausalLM.from_pretrained(exported.folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), split.parameters(), strict=True))


def test_memory_holds_one_weight_at_a_time(tmp_path: Path, make_run: MakeRun) -> None:
    folder, weights = make_run(hidden_size=128, intermediate_size=2048, num_layers=4)
    largest = max(array.nbytes for array in weights.values())
    total = sum(array.nbytes for array in weights.values())
    tracemalloc.start()
    export_run(folder, tmp_path / "model")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < largest + (2 << 20) < total / 2


def test_a_folder_in_use_is_left_alone(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    (tmp_path / "empty").mkdir()
    assert export_run(folder, tmp_path / "empty").files
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("years of work")
    for out in (tmp_path / "used", tmp_path / "used" / "thesis.tex"):
        with pytest.raises(UserError, match=f"{out.name} exists and is not empty: name a new folder"):
            export_run(folder, out)
    assert (tmp_path / "used" / "thesis.tex").read_text() == "years of work"


def test_wrong_wishes_are_refused(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    with pytest.raises(UserError, match="no complete checkpoint of step 21; complete steps: 20"):
        export_run(folder, tmp_path / "model", step=21)
    with pytest.raises(UserError, match="above 0"):
        export_run(folder, tmp_path / "model", shard_gb=0)
    with pytest.raises(UserError, match="above 0"):
        export_run(folder, tmp_path / "model", shard_gb=float("nan"))
    with pytest.raises(UserError, match=r"no run folder"):
        export_run(RunFolder(tmp_path / "nowhere"), tmp_path / "model")
    (tmp_path / "bytes.json").unlink()
    with pytest.raises(UserError, match=r"bytes\.json, is not there any more"):
        export_run(folder, tmp_path / "model")
    folder.data_json.unlink()
    with pytest.raises(UserError, match=r"no data\.json"):
        export_run(folder, tmp_path / "model")
    folder.write_json(folder.run_json, small_spec(model=LLAMA | {"norm_eps": 1e-6}).model_dump(mode="json"))
    folder.write(folder.data_json, corpus(byte_tokenizer(tmp_path)).model_dump_json())
    with pytest.raises(UserError, match="another model"):
        export_run(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_damage_is_never_exported(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    shard = folder.checkpoints / "step-00000020" / shard_name(1)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedError, match=f"is damaged: {shard.name}: SHA-256"):
        export_run(folder, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes.json", "run"]


def test_a_failing_disk_leaves_nothing(tmp_path: Path, make_run: MakeRun, no_file_beyond: NoFileBeyond) -> None:
    folder, _ = make_run()
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "leftover").touch()
    message = r"cannot write .*model\.safetensors: File too large"
    with no_file_beyond(65536), pytest.raises(MachineError, match=message):
        export_run(folder, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes.json", "run"]


def test_no_torch_is_needed(tmp_path: Path, make_run: MakeRun) -> None:
    folder, _ = make_run()
    program = (
        "import sys; sys.modules.update(torch=None, transformers=None, safetensors=None)\n"
        "from pathlib import Path; from aiftrain.checkpoint.described import model_at\n"
        "from aiftrain.checkpoint.export import export; from aiftrain.checkpoint.places import Home\n"
        "from aiftrain.run.folder import RunFolder\n"
        "print(export(model_at(Home.of(RunFolder(sys.argv[1]))), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(folder.path), str(tmp_path / "model")]
    root = Path(aiftrain.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "model")), done.stderr


def test_a_checkpoint_covers_every_parameter() -> None:
    """The list of parameters that these tests use adds up to the formula's count."""
    for shape in SHAPES.values():
        model = ModelSpec(**shape)
        assert sum(map(prod, parameter_shapes(model).values())) == model.parameters
