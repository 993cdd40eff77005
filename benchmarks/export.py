"""Export of a large checkpoint: the memory it needs, and whether transformers computes the same logits from the result.

    python benchmarks/export.py [--json] [--folder .] [--layers 24] [--hidden 2048] [--ranks 8]

Writes a checkpoint of random weights (1.3 billion parameters by default), cut as ZeRO cuts them: the flattened model in
as many parts as there are ranks. Exports it in processes of their own, from a run folder, from a plain archive and from
a sealed one; each prints the largest memory it ever held (VmHWM of /proc/self/status). Needs three times the weights on
the disk, twice in memory, and removes all of it afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from transformers import AutoModelForCausalLM

from aiftrain.checkpoint.attachments import attach
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.manifest import FileRecord, Manifest
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, new_identity
from aiftrain.checkpoint.shards import Shard, shard_name
from aiftrain.checkpoint.tensorfile import Tensor, record_of
from aiftrain.checkpoint.writer import write_file
from aiftrain.data.corpus import PreparedCorpus, PreparedTokenizer
from aiftrain.run.folder import RunFolder
from aiftrain.run.model import ModelSpec
from aiftrain.run.spec import RunSpec
from aiftrain.train.model import Decoder
from aiftrain.train.sample import load_model

STEP, SEQUENCE = 100, 64
PROGRAM = """
import sys
from aiftrain.cli.main import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
raise SystemExit(code)
"""


def spec_of(options: argparse.Namespace, recipient: str) -> RunSpec:
    model = {
        "name": "large", "vocab_size": 32_000, "hidden_size": options.hidden, "num_layers": options.layers,
        "intermediate_size": options.hidden * 43 // 16, "num_heads": 16, "num_kv_heads": 16,
    }  # fmt: skip
    seal = {"where": "archives", "recipients": [recipient]} if recipient else {}
    return RunSpec.model_validate(
        {
            "recipe": "export",
            "factory": {"name": "local", "title": "This machine"},
            "hardware": {"name": "cpu", "title": "A CPU node", "kind": "cpu", "bf16": False},
            "parallelism": {"name": "zero3", "zero_stage": 3},
            "model": model,
            "data": {"name": "none", "sources": {"en": {"kind": "python-docs"}}},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "train": {"steps": STEP, "sequence_length": SEQUENCE, "global_batch": options.ranks},
            "storage": {"name": "local", "save_every": STEP, "seal": seal},
            "tracking": {"name": "none"},
            "launcher": {"name": "local", "ranks_per_node": options.ranks},
        }
    )


def shapes_of(model: ModelSpec) -> dict[str, list[int]]:
    with torch.device("meta"):
        decoder = Decoder(model, sequence_length=SEQUENCE)
    return {name: list(parameter.shape) for name, parameter in decoder.named_parameters()}


@lru_cache(maxsize=1)
def parameter(number: int, name: str, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random, and the same each time."""
    values = np.random.default_rng([0, number]).standard_normal(size, np.float32)
    values *= 0.02
    return values + 1 if "norm" in name else values


def part(number: int, name: str, size: int, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return parameter(number, name, size)[start:stop]


def write_checkpoint(folder: RunFolder, spec: RunSpec, ranks: int) -> None:
    shapes, catalog = shapes_of(spec.model), Catalog.of_run(folder, spec)
    place = catalog.begin(STEP)
    total = sum(map(prod, shapes.values()))
    cuts = [total * rank // ranks for rank in range(ranks + 1)]
    files = [write_rank(place, rank, shapes, *cuts[rank : rank + 2]) for rank in range(ranks)]
    tokenizer = write_tokenizer(folder.path)
    corpus = PreparedCorpus(name="none", tokenizer=tokenizer, sources={}, unigram_loss=5.0, digest="0" * 32)
    manifest = Manifest(
        step=STEP, optimizer_step=STEP, tokens=0, sources={}, time=time.time(), attempt=1, world_size=ranks,
        run_digest=spec.digest, identity=spec.identity(), versions={"numpy": np.__version__}, shapes=shapes,
        files=[*files, *attach(place, spec, corpus)],
    )  # fmt: skip
    catalog.commit(manifest)


def write_rank(place: Path, rank: int, shapes: dict[str, list[int]], first: int, last: int) -> FileRecord:
    """The shard with elements [first, last) of the flattened model."""
    shard, begin = Shard({}), 0
    for number, (name, shape) in enumerate(shapes.items()):
        size = prod(shape)
        start, stop = max(first - begin, 0), min(last - begin, size)
        if start < stop:
            load = partial(part, number, name, size, start, stop)
            shard.add("weight", name, start, partial(lazy, load=load, size=stop - start))
        begin += size
    path = place / shard_name(rank)
    return record_of(path, write_file(path, shard.arranged().blocks()))


def lazy(key: str, *, load: Any, size: int) -> Tensor:
    return Tensor(key, np.dtype(np.float32), (size,), load)


def write_tokenizer(folder: Path) -> PreparedTokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return PreparedTokenizer(path=folder / "tokenizer.json", digest="0" * 32, vocab_size=1, eos_id=0)


def run(*words: str | Path, environ: dict[str, str] | None = None) -> tuple[float, float]:
    """Seconds, and the most memory (GiB) that the command ever held."""
    began = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, "checkpoints", *map(str, words)]
    done = subprocess.run(command, env=os.environ | (environ or {}), stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, int(done.stdout.split()[-1]) / 2**20


def our_logits(folder: RunFolder, spec: RunSpec, tokens: torch.Tensor) -> torch.Tensor:
    model = load_model(spec, Catalog.of_run(folder, spec).find(STEP))
    with torch.no_grad():
        logits: torch.Tensor = model(tokens)
    return logits


def their_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    with torch.no_grad():
        logits: torch.Tensor = model(tokens).logits
    return logits


def exports(folder: RunFolder, place: Path, identity: Path) -> Iterator[tuple[str, Path, float, float]]:
    """From each kind of place: what it is, the exported folder, seconds and GiB. The folder is gone afterwards."""
    plain, sealed, out = place / "plain", place / "sealed", place / "exported"
    spec = folder.read_spec()
    for archive in (None, plain, sealed):
        origin = archive or folder.path
        if archive:
            archive.mkdir()
            seal = spec.storage.seal if archive is sealed else type(spec.storage.seal)()
            storage = spec.storage.model_copy(update={"seal": seal})
            changed = spec.model_copy(update={"storage": storage})
            folder.write_json(folder.run_json, changed.model_dump(mode="json"))
            run("copy", folder.path, archive)
        figures = run("export", origin, "--out", out, environ={IDENTITY_FILE: str(identity)})
        yield origin.name, out, *figures
        shutil.rmtree(out)
        if archive:
            shutil.rmtree(archive)


def measure(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    identity = place / "identity"
    spec, folder = spec_of(options, new_identity(identity)), RunFolder(place / "run")
    folder.write_json(folder.run_json, spec.model_dump(mode="json"))
    write_checkpoint(folder, spec, options.ranks)
    tokens = torch.randint(spec.model.vocab_size, (1, SEQUENCE), generator=torch.Generator().manual_seed(0))
    ours = our_logits(folder, spec, tokens)
    found: dict[str, Any] = {"parameters": spec.model.parameters, "largest_logit": round(ours.abs().max().item(), 2)}
    for origin, out, seconds, gib in exports(folder, place, identity):
        difference = (their_logits(out, tokens) - ours).abs().max().item()
        found[origin] = {"seconds": round(seconds, 1), "peak_gib": round(gib, 2), "difference": difference}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk in question")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="export-") as place:
        found = measure(options, Path(place))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['parameters']:,} parameters, logits of up to {found['largest_logit']}")
    for origin in ("run", "plain", "sealed"):
        figures = found[origin]
        print(
            f"{origin:<8} {figures['seconds']:6.1f} s   at most {figures['peak_gib']:.2f} GiB   "
            f"logits differ by at most {figures['difference']:.1e}"
        )


if __name__ == "__main__":
    main()
