"""A model's parameters: a dict from name to array, how it begins, and what it must hold.

The names are Hugging Face's for GPT-2 without their prefix ``transformer.``, and the arrays are as
GPT-2 stores them: projections are [in, out].
"""

import math
from typing import Any

import numpy as np

from ..checks import expect_parameter, refuse
from .decoder_block import PARAMETERS
from .presets import GPTConfig, parameter_shapes

Parameters = dict[str, np.ndarray]
INITS = ("gpt2", "fan_in")


def init_parameters(
    config: GPTConfig, seed: int = 0, dtype: Any = np.float32, init: str = "gpt2"
) -> Parameters:
    """Draw a new model's parameters: matrices as `initial_std` says, norms 1, biases 0.

    Parameters
    ----------
    config : GPTConfig
    seed : int
        Of NumPy's generator: the same numbers in any dtype, but for their rounding.
    dtype : NumPy dtype
    init : str
        One of `INITS`.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return (np.zeros if name.endswith("bias") else np.ones)(shape, dtype)
        std = initial_std(config, name, shape[0], init)
        return rng.normal(0, std, size=shape).astype(dtype)

    return {name: draw(name, shape) for name, shape in parameter_shapes(config).items()}


def initial_std(config: GPTConfig, name: str, fan_in: int, init: str = "gpt2") -> float:
    """Return the standard deviation that a matrix is drawn with.

    "gpt2": 0.02, whatever the width. GPT-2 and GPT-3 draw positions with 0.01, and divide the two
    projections into the stream by √(2·n_layer): 2·n_layer branches add up there (Radford et al.
    2019, section 2.3).

    "fan_in": 1/√fan_in for a projection, a sum of `fan_in` numbers, so that what it returns is as
    large as what it is given (LeCun et al. 1998, "Efficient BackProp", section 4.6), with the same
    division; embeddings and the head 0.02. The two agree at a width of 2,500. At 128, GPT-2's 0.02
    makes each projection begin more than four times too small, and a short training spends itself
    on making up for it: `gptwin bench cpu --only shakespeare` trains both.
    """
    if init not in INITS:
        refuse("init", " or ".join(INITS), repr(init))
    pre = config.norm == "pre"
    std = 0.02
    if init == "fan_in" and name.startswith("h."):
        std = 1 / math.sqrt(fan_in)
    elif init == "gpt2" and pre and name == "wpe.weight":
        std = 0.01
    if pre and name.endswith("c_proj.weight"):
        std /= math.sqrt(2 * config.n_layer)
    return std


def block_names(layer: int) -> list[str]:
    """List a block's twelve parameters in the order of `decoder_block`'s arguments."""
    return [f"h.{layer}.{name}" for name in PARAMETERS]


def block_parameters(parameters: Parameters, layer: int) -> list[Any]:
    """Return a block's twelve arrays; None for a bias that the model has not."""
    return [parameters.get(name) for name in block_names(layer)]


def output_matrix(parameters: Parameters) -> np.ndarray:
    """Return what turns hidden states into logits, [d_model, vocab_size], as a transposed view.

    It is the tied token table, or a matrix of its own.
    """
    return parameters.get("lm_head.weight", parameters["wte.weight"]).T


def check_parameters(parameters: Parameters, config: GPTConfig) -> None:
    """Refuse a model that is not of this configuration, or that is none that this code runs."""
    if config.activation != "gelu_tanh" or config.n_types or config.pooler:
        refuse("config", "a model of GPT's parts", "BERT's parts", "a preset that is counted only")
    shapes = parameter_shapes(config)
    for name, shape in shapes.items():
        expect_parameter(name, parameters.get(name), shape)
    for name in parameters.keys() - shapes.keys():
        refuse(
            "parameters",
            "the names of parameter_shapes(config) alone",
            repr(name),
            "a prefix `transformer.`, a buffer such as attn.bias, or a head that is tied",
        )
