"""A model's shape: its fields, which of them go together, and the sizes that follow."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aiftrain.run.base import Strict

Mlp = Literal["swiglu", "geglu", "gelu", "relu", "relu2", "xielu"]
Positions = Literal["rope", "alibi", "learned", "none"]


class MoeSpec(Strict):
    """A mixture of experts in place of the MLP: every token goes to its `experts_per_token` best ones.

    None is dropped, unless there is a `capacity_factor`: an expert then takes of each row (a sequence) the first tokens
    that chose it, up to so many times its even share; the others pass it by.
    The router is a softmax over all experts whose best are scaled to sum to one (Mixtral, arXiv 2401.04088).
    Which layers have experts: not the first `dense_layers`, and of the others every `every`-th.
    """

    num_experts: int = Field(ge=2)
    experts_per_token: int = Field(ge=1)
    expert_intermediate_size: int = Field(ge=1)
    shared_intermediate_size: int = Field(0, ge=0)  # of the MLP that every token passes as well; 0: none
    dense_layers: int = Field(0, ge=0)
    every: int = Field(1, ge=1)
    balance_loss: float = Field(0.01, ge=0)  # weight of the load-balancing loss (Switch, arXiv 2101.03961, eq. 4)
    router_z_loss: float = Field(0.0, ge=0)  # weight of the router's z-loss (ST-MoE, arXiv 2202.08906, eq. 5)
    capacity_factor: float | None = Field(None, gt=0)  # None: experts take all that choose them

    @model_validator(mode="after")
    def _experts_suffice(self) -> Self:
        if self.experts_per_token > self.num_experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than num_experts {self.num_experts}")
        return self


class LatentSpec(Strict):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of one small vector.

    A head's queries and keys are `nope_dim` long without positions and `rope_dim` with; that part of the keys is
    common to all heads. `query_rank` None: queries straight from the hidden state.
    """

    query_rank: int | None = Field(None, ge=1)
    kv_rank: int = Field(ge=1)
    nope_dim: int = Field(ge=1)
    rope_dim: int = Field(ge=2, multiple_of=2)
    value_dim: int = Field(ge=1)


class ModelShape(Strict):
    """A decoder-only transformer with pre-norm layers. The defaults are Llama's: RMSNorm, RoPE, SwiGLU, no biases."""

    name: str
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)  # of dense layers
    num_layers: int = Field(ge=1, le=10_000)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int | None = Field(None, ge=1)
    positions: Positions = "rope"  # rope: arXiv 2104.09864, alibi: arXiv 2108.12409, learned: a table
    rope_theta: float = Field(10_000.0, gt=0)
    rotary_fraction: float = Field(1.0, gt=0, le=1)  # of a head's dimensions that turn
    nope_every: int | None = Field(None, ge=1)  # every n-th layer does without RoPE (arXiv 2501.18795)
    max_positions: int | None = Field(None, ge=1)  # rows of the table of learned positions
    sliding_window: int | None = Field(None, ge=1)  # tokens that a token looks back at, itself included
    global_every: int | None = Field(None, ge=1)  # every n-th layer has no window
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norm_eps: float = Field(1e-5, gt=0)
    embedding_norm: bool = False  # one more norm, after the embedding (BLOOM, arXiv 2211.05100)
    qk_norm: bool = False  # RMSNorm of each head's queries and keys (Qwen3, Apertus)
    latent: LatentSpec | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp: Mlp = "swiglu"  # swiglu and geglu are gated; relu2: arXiv 2109.08668; xielu: arXiv 2411.13010
    mlp_bias: bool = False
    moe: MoeSpec | None = None
    tie_embeddings: bool = False
    init_std: float = Field(0.02, gt=0)
    z_loss: float = Field(0.0, ge=0)  # weight of the output distribution's mean squared log-partition; 0: none
    published_parameters: int | str | None = None  # what its makers count, to the unit or as "7.55B"
    source: str | None = None  # where shape and count were published

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}: "
                f"num_kv_heads may be {_divisors(self.num_heads)}"
            )
        if self.head_dim is None and self.hidden_size % self.num_heads and self.latent is None:
            multiple = self.num_heads * (self.hidden_size // self.num_heads + 1)
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: "
                f"give model.head_dim, or a hidden_size such as {multiple}"
            )
        if self.positions == "rope" and self.rotary_size % 2:
            raise ValueError(
                f"head_dim {self.head_size} turns {self.rotary_size} dimensions, which is odd: "
                "rotary embedding turns pairs, so it must be even"
            )
        return self

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if (self.positions == "learned") != (self.max_positions is not None):
            raise ValueError("max_positions is the size of the table of positions: give it with positions=learned only")
        if self.norm_bias and self.norm == "rms":
            raise ValueError("norm_bias needs norm=layer: an RMSNorm has no bias")
        if self.global_every and self.sliding_window is None:
            raise ValueError("global_every names the layers without a window: it needs sliding_window")
        if self.latent and (self.positions != "rope" or self.qk_norm or self.qkv_bias):
            raise ValueError("latent attention has RoPE and norms of its own: positions=rope, no qk_norm, no qkv_bias")
        if self.moe and self.mlp == "xielu":
            raise ValueError("xielu has weights of its own, which experts have not: another model.mlp, or no model.moe")
        if self.moe and self.moe.dense_layers >= self.num_layers:
            raise ValueError(f"moe.dense_layers {self.moe.dense_layers} leaves none of {self.num_layers} layers")
        return self

    @property
    def head_size(self) -> int:
        """Dimensions of one head's queries and keys."""
        if self.latent:
            return self.latent.nope_dim + self.latent.rope_dim
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def rotary_size(self) -> int:
        """Dimensions of a head that RoPE turns."""
        return self.latent.rope_dim if self.latent else int(self.head_size * self.rotary_fraction)

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Dimensions of a token's keys, and of its values, over all heads, as attention sees them."""
        return self.num_kv_heads * self.head_size

    @property
    def mixed_size(self) -> int:
        """Dimensions of what attention hands to its output projection."""
        return self.num_heads * (self.latent.value_dim if self.latent else self.head_size)

    @property
    def gated(self) -> bool:
        return self.mlp in ("swiglu", "geglu")

    def has_experts(self, layer: int) -> bool:
        """Whether layer `layer`, counted from 0, holds experts in place of one MLP."""
        moe = self.moe
        return moe is not None and layer >= moe.dense_layers and (layer + 1) % moe.every == 0

    def has_window(self, layer: int) -> bool:
        """Whether layer `layer`, counted from 0, looks back no further than `sliding_window`."""
        return self.sliding_window is not None and not (self.global_every and (layer + 1) % self.global_every == 0)

    def turns(self, layer: int) -> bool:
        """Whether layer `layer`, counted from 0, has rotary positions."""
        return self.positions == "rope" and not (self.nope_every and (layer + 1) % self.nope_every == 0)

    @property
    def expert_layers(self) -> int:
        return sum(map(self.has_experts, range(self.num_layers))) if self.moe else 0


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
