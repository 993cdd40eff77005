"""README.md of an exported model: facts of the run, and nothing that the run does not know."""

from __future__ import annotations

from pathlib import Path

from aiftrain.checkpoint.huggingface import architecture
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.run.spec import RunSpec


def model_card(spec: RunSpec, manifest: Manifest, *, averaged: bool = False) -> str:
    """The card, in the Markdown with a YAML head that the Hugging Face Hub reads."""
    model, timeline = spec.model, spec.timeline
    phase = timeline.after(manifest.step)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{_languages(spec)}---

# {spec.recipe}

A language model trained {_beginning(spec)} with aiftrain, run `{manifest.run_digest}`.

| | |
|---|---|
| Parameters | {model.parameters:,} |
| Architecture | {architecture(model)[0]} |
| Layers, hidden size, heads (keys and values) | {model.num_layers}, {model.hidden_size}, {_heads(spec)} |
| Vocabulary | {model.vocab_size:,} |
| Step | {manifest.step:,} of {timeline.total_steps:,} |
| Tokens trained on | {manifest.tokens:,} |
| Batch | {phase.global_batch:,} sequences of {phase.sequence_length:,} tokens |
{_goldfish(spec)}| Weights | {_weights(spec, averaged)} |
| Made with | {_versions(manifest)} |

## Training data

| Source | Language | Tokens seen |
|---|---|---|
{_sources(spec, manifest)}
"""


def _beginning(spec: RunSpec) -> str:
    return f"from the weights of {Path(spec.init_from.path).name}" if spec.init_from else "from scratch"


def _goldfish(spec: RunSpec) -> str:
    goldfish = spec.data.goldfish
    return f"| Goldfish loss | 1 target in {goldfish.one_in}, by {goldfish.width} tokens |\n" if goldfish else ""


def _weights(spec: RunSpec, averaged: bool) -> str:
    return f"float32, moving average over steps (decay {spec.optimizer.ema_decay})" if averaged else "float32"


def _heads(spec: RunSpec) -> str:
    return f"{spec.model.num_heads} ({spec.model.num_kv_heads})"


def _languages(spec: RunSpec) -> str:
    languages = sorted({source.language for source in spec.data.sources.values() if source.language})
    return "".join(["language:\n", *(f"- {language}\n" for language in languages)]) if languages else ""


def _versions(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.versions.items())


def _sources(spec: RunSpec, manifest: Manifest) -> str:
    languages = {name: source.language or "" for name, source in spec.data.sources.items()}
    rows = (f"| {name} | {languages.get(name, '')} | {tokens:,} |" for name, tokens in manifest.sources.items())
    return "\n".join(rows)
