"""Products of layers in 8-bit floating point, by torchao: inputs, weights and gradients are scaled and cast for them.

Weights, their fp32 masters, sums and everything between products stay as they are. Covered are the products of queries,
keys and values, of attention's output and of MLPs, in both orders in which weights are stored. Experts, the embedding
and the output projection keep 16 bits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from aiftrain.errors import UserError
from aiftrain.run.spec import Fp8
from aiftrain.train.model import Decoder
from aiftrain.train.tensor_parallel import JoinLinear, Product, SplitLinear


def use_fp8(model: Decoder, recipe: Fp8, *, emulate: bool = False) -> None:
    """Compute the products of the model's layers as torchao's `recipe` has it. UserError where torchao is missing.

    `emulate`: round as fp8 does, on devices that have none.
    """
    product = fp8_product(recipe, emulate=emulate)
    for module in model.layers.modules():
        if isinstance(module, SplitLinear | JoinLinear):
            module.product = product


def fp8_product(recipe: Fp8, *, emulate: bool = False) -> Product:
    """(x, weight [out, in], bias) -> x @ weight.T + bias, like torch's `linear`."""
    try:
        from torchao.float8 import Float8LinearConfig
        from torchao.float8.float8_linear import matmul_with_hp_or_float8_args
        from torchao.float8.float8_training_tensor import LinearMMConfig, ScaledMMConfig
    except ImportError as error:
        raise UserError(
            f"train.fp8={recipe} needs torchao: python -m pip install -c constraints.txt 'aiftrain[fp8]'"
        ) from error
    config = replace(Float8LinearConfig.from_recipe_name(recipe), emulate=emulate)
    three = (config.gemm_config_output, config.gemm_config_grad_input, config.gemm_config_grad_weight)
    products = LinearMMConfig(*(ScaledMMConfig(emulate, each.use_fast_accum, False, False) for each in three))

    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        device = x.device.type
        if torch.is_autocast_enabled(device):  # it knows `linear`, but not this
            x = x.to(torch.get_autocast_dtype(device))
        out: Tensor = matmul_with_hp_or_float8_args.apply(x, weight.t(), products, config)
        return out if bias is None else out + bias.to(out.dtype)

    return product
