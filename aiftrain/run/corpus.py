"""What a run reads: sources of text or tokens, their mixture, and the tokenizer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aiftrain.run.base import Strict

SourceKind = Literal["text", "tokens", "python-docs", "python-source", "man-pages"]


class SourceSpec(Strict):
    """One named source of documents.

    kind `text`: `path` is a file or a folder of .txt, .jsonl, .jsonl.zst, .parquet (may be a glob).
    kind `tokens`: `path` is the prefix of a Megatron .bin/.idx pair, used as it is.
    The other kinds are real text that a machine has anyway: the documentation inside Python's standard
    library, its sources, and the manual pages translated into `language`.
    """

    kind: SourceKind = "text"
    path: str | None = None
    language: str | None = None
    weight: float | None = Field(None, ge=0)  # share of the mixture; None: by size and temperature; 0: see `stages`
    text_key: str = "text"  # the field that holds the text in .jsonl and .parquet
    split: Literal["file", "line", "blank-line"] = "file"  # where a document ends in .txt
    broken_text: Literal["refuse", "replace", "skip"] = "refuse"  # what to do with bytes that are not UTF-8

    @model_validator(mode="after")
    def _is_complete(self) -> SourceSpec:
        if self.kind in ("text", "tokens") and not self.path:
            raise ValueError(f"a source of kind {self.kind} needs a path")
        if self.kind == "man-pages" and not self.language:
            raise ValueError("a source of kind man-pages needs a language, such as language=de")
        return self


class TokenizerSpec(Strict):
    """A byte-level BPE trained on the sources, or an existing tokenizer.json or SentencePiece .model file."""

    kind: Literal["train", "file"] = "train"
    path: str | None = None  # for kind file
    vocab_size: int | None = Field(None, ge=257)  # for kind train; None: the model's
    train_bytes: int = Field(50_000_000, ge=1)  # how much text the training may read

    @model_validator(mode="after")
    def _is_complete(self) -> TokenizerSpec:
        if self.kind == "file" and not self.path:
            raise ValueError("tokenizer kind file needs a path to a tokenizer.json or a SentencePiece .model file")
        return self


class GoldfishSpec(Strict):
    """Of one target in `one_in`, chosen by a hash of the `width` tokens before it, no loss is taken (2406.10209).

    The paper's k and h; Apertus has 50 and 50 (arXiv 2509.14233).
    """

    one_in: int = Field(ge=2)
    width: int = Field(50, ge=1)


class DataSpec(Strict):
    """The mixture. A source without a weight gets one proportional to its tokens ** (1 / temperature).

    A source of weight 0 is read by the stages that name it, and only there.
    """

    name: str
    root: str | None = None  # a folder that paths in sources may refer to as ${data.root}
    cache_dir: str = "runs/data"
    sources: dict[str, SourceSpec] = Field(min_length=1)
    tokenizer: TokenizerSpec = TokenizerSpec()
    temperature: float = Field(1.0, gt=0)
    validation_fraction: float = Field(0.02, ge=0, lt=1)  # of the documents
    document_mask: bool = True  # attention stays inside a document
    unit: int | None = Field(None, ge=2)  # tokens shuffled as one; None: the least that every stage's length divides
    goldfish: GoldfishSpec | None = None  # against learning by heart; validation has the whole loss
    workers: int | None = Field(None, ge=1)  # processes of `data prepare`; None: one a core

    @model_validator(mode="after")
    def _weights_agree(self) -> DataSpec:
        missing = [name for name, source in self.sources.items() if source.weight is None]
        heard = [name for name, source in self.sources.items() if source.weight != 0]
        if not heard:
            raise ValueError("every source has weight 0: give one of them a weight")
        if missing and len(missing) < len(heard):
            raise ValueError(f"either every source has a weight or none has; without one: {', '.join(missing)}")
        return self
