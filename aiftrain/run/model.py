"""The model's shape, and what follows from it without building it: parameters and FLOPs, to the unit."""

from __future__ import annotations

from pydantic import Field, model_validator

from aiftrain.run.base import Strict


class ModelSpec(Strict):
    """A Llama-shaped decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU.

    With `qk_norm` queries and keys are normalised per head (Qwen3's form). `z_loss` is the weight of
    the mean squared log-partition of the output distribution; 0 leaves it out.
    """

    name: str
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int | None = Field(None, ge=1)
    rope_theta: float = Field(10_000.0, gt=0)
    norm_eps: float = Field(1e-5, gt=0)
    qk_norm: bool = False
    tie_embeddings: bool = False
    init_std: float = Field(0.02, gt=0)
    z_loss: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSpec:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}: "
                f"num_kv_heads may be {_divisors(self.num_heads)}"
            )
        if self.head_dim is None and self.hidden_size % self.num_heads:
            multiple = self.num_heads * (self.hidden_size // self.num_heads + 1)
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: "
                f"give model.head_dim, or a hidden_size such as {multiple}"
            )
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd: rotary embedding turns pairs, so it must be even")
        return self

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_size

    @property
    def layer_matmul_parameters(self) -> int:
        """Weights of one layer's matrices: query, key, value, output, gate, up, down."""
        attention = self.hidden_size * (2 * self.query_size + 2 * self.kv_size)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def layer_parameters(self) -> int:
        """All weights of one layer, its two norms and the optional query/key norms included."""
        return self.layer_matmul_parameters + 2 * self.hidden_size + (2 * self.head_size if self.qk_norm else 0)

    @property
    def parameters(self) -> int:
        """All weights of the model, to the unit."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        return embeddings + self.num_layers * self.layer_parameters + self.hidden_size

    def flops_per_token(self, sequence_length: int) -> float:
        """Model FLOPs to train on one token: forward and backward of every matrix product.

        6 FLOPs a matrix weight (2 forward, 4 backward) plus 12 * layers * query size * context for
        attention, halved because attention is causal (PaLM appendix B, arXiv 2204.02311, less the half
        that causality removes). The embedding look-up is no product; the output head is one. Document
        masks reduce the real work further and are not credited.
        """
        weights = self.num_layers * self.layer_matmul_parameters + self.vocab_size * self.hidden_size
        attention = 12 * self.num_layers * self.query_size * sequence_length / 2
        return 6.0 * weights + attention


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
