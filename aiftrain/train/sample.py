"""Continue a prompt with a run's newest weights: a look at what it has learned, not a server."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from aiftrain.checkpoint.catalog import Catalog, Checkpoint
from aiftrain.data.prepare import PreparedCorpus
from aiftrain.data.tokenizer import load_tokenizer
from aiftrain.errors import UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.spec import RunSpec
from aiftrain.train.model import Decoder


def sample(
    folder: RunFolder,
    prompt: str,
    *,
    tokens: int = 64,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
    step: int | None = None,
) -> str:
    """The text that follows `prompt`, at most `tokens` tokens of it, ended early where the model ends the document.

    Temperature 0 takes the likeliest token each time. UserError where the run has no checkpoint (of `step`), or
    one of another model; DamagedError where its files are not what was written.
    """
    spec = folder.read_spec()
    tokenizer = load_tokenizer(_tokenizer_path(folder))
    checkpoint = Catalog.of_run(folder, spec).find_whole(spec, step)
    model = load_model(spec, checkpoint)
    longest = spec.timeline.after(checkpoint.step).sequence_length
    ids = tokenizer.encode(prompt) or [tokenizer.eos_id]
    generator = torch.Generator().manual_seed(seed)
    new: list[int] = []
    for _ in range(tokens):
        context = torch.tensor([(ids + new)[-longest:]])
        with torch.no_grad():
            logits = model(context)
        token = _choose(logits[0, -1], temperature, top_k, generator)
        if token == tokenizer.eos_id:
            break
        new.append(token)
    return tokenizer.decode(new)


def load_model(spec: RunSpec, checkpoint: Checkpoint) -> Decoder:
    """The model in fp32 on the CPU, with the weights of a checkpoint."""
    phase = spec.timeline.after(checkpoint.step)
    model = Decoder(spec.model, sequence_length=phase.sequence_length).eval()
    model.set_positions(phase.sequence_length, phase.rope_theta)
    with checkpoint.reader() as reader, torch.no_grad():
        for name, parameter in model.named_parameters():
            values = reader.read(name, "weight", 0, parameter.numel())
            parameter.copy_(torch.from_numpy(values).view_as(parameter))
    return model


def _choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    best, indices = logits.topk(min(top_k, len(logits)))
    chances = torch.softmax(best / temperature, dim=-1)
    return int(indices[torch.multinomial(chances, 1, generator=generator)])


def _tokenizer_path(folder: RunFolder) -> Path:
    if not folder.data_json.is_file():
        raise UserError(f"{folder.path} has no data.json, which names its tokenizer: has the run been started?")
    document = json.loads(folder.data_json.read_text(encoding="utf-8"))
    return PreparedCorpus.model_validate(document).tokenizer.path
