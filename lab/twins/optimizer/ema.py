"""The twin of the averaged parameters, over lists of tensors."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.optimizer import ema as core_ema
from ....kernels.optimizer import ema as triton_ema
from ..strategies import any_inputs, tensor_shapes
from ..twin import Case, Cost, Draw, Inputs, Twin

_MOST_TENSORS = 5
_AVERAGES = tuple(f"average_{i}" for i in range(_MOST_TENSORS))
_PARAMETERS = tuple(f"parameter_{i}" for i in range(_MOST_TENSORS))


def _of_lists(tensors: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Sort named tensors into averages and parameters."""
    averages, parameters = (
        [tensors[name] for name in names if name in tensors] for names in (_AVERAGES, _PARAMETERS)
    )
    return averages, parameters


def _ema_forward(decay: float, **tensors: np.ndarray) -> tuple[tuple[np.ndarray, ...], None]:
    return tuple(core_ema.ema(*_of_lists(tensors), decay)), None


def _in_float32(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the averages in float32, whatever the parameters' dtype (float64 stays)."""

    @functools.wraps(operation)
    def wrapped(decay: float, **tensors: Any) -> tuple[Any, ...]:
        averages, parameters = _of_lists(tensors)
        narrow = [a.is_floating_point() and a.element_size() < 4 for a in averages]
        wide = [
            a.float() if is_narrow else a for a, is_narrow in zip(averages, narrow, strict=True)
        ]
        return tuple(operation(wide, parameters, decay))

    return wrapped


def _ema_inputs(case: Case, draw: Draw) -> Inputs:
    tensors = {}
    for i, shape in enumerate(case["shapes"]):
        std = case.get("magnitude", 1.0)
        tensors[_AVERAGES[i]] = draw.normal(*shape, std=std)
        tensors[_PARAMETERS[i]] = draw.normal(*shape, std=std)
    return Inputs(tensors, {"decay": case.get("decay", 0.992)})


def _ema_real(activations: dict[str, np.ndarray]) -> Inputs:
    """The block's weights, and an average that lags behind by a part of each."""
    names = ("token_table", "w_qkv", "norm_bias")
    tensors = {_PARAMETERS[i]: activations[name] for i, name in enumerate(names)}
    lagging = {_AVERAGES[i]: activations[name] * 0.9 for i, name in enumerate(names)}
    return Inputs(lagging | tensors, {"decay": 0.992})


def _ema_cost(case: Case, itemsize: int) -> tuple[Cost, None]:
    sizes = [math.prod(shape) for shape in case["shapes"]]
    averages = {name: 4 * n for name, n in zip(_AVERAGES, sizes, strict=False)}  # float32
    parameters = {name: itemsize * n for name, n in zip(_PARAMETERS, sizes, strict=False)}
    # subtract, multiply, add
    return Cost(1 + 3 * sum(sizes), averages | parameters, averages), None


_EMA_BLOCK = triton_ema.BLOCK
# Some of GPT-2's: the token table, two matrices, a bias and a norm's weight.
_GPT2_SHAPES: list[list[int]] = [[50257, 768], [768, 2304], [2304], [768, 3072], [768]]

_CONTRACTS = {
    "ema_kernel": """
        table.rows[table.n_tensors, table.WIDTH]; 1 <= table.n_tensors; grid[n_blocks]
        1 <= table.rows.value[:, 0] <= 2**40; 0 <= table.rows.value[:, 1] < n_blocks
        table.rows.value[0, 1] == 0; addresses(table.rows.value[:, 2:5], table.rows.value[:, 0])
    """,
}

ema = Twin(
    name="ema",
    forward=_ema_forward,
    backward=None,
    kernel=_in_float32(triton_ema.ema),
    eager=_in_float32(triton_ema.ema_eager),
    arguments=(*_AVERAGES, *_PARAMETERS),
    results=_AVERAGES,
    statistics=_AVERAGES,
    cases=st.fixed_dictionaries(
        {
            "shapes": tensor_shapes(_EMA_BLOCK, _MOST_TENSORS, st.integers(1, 3 * _EMA_BLOCK)),
            "decay": st.sampled_from([0.992, 0.0, 0.3, 0.5, 0.9999, 1.0]),
            "magnitude": st.sampled_from([1.0, 0.001, 1000.0]),
            **any_inputs,
        }
    ),
    corners=(
        {"shapes": [[3, 5], [0], [1], [_EMA_BLOCK + 1], [2, _EMA_BLOCK]], "seed": 1},
        {"shapes": [[2 * _EMA_BLOCK]], "decay": 0.3, "seed": 2},
    ),
    inputs=_ema_inputs,
    real=_ema_real,
    shapes={"gpt2, one of each": {"shapes": _GPT2_SHAPES}, "one": {"shapes": [[768, 768]]}},
    cost=_ema_cost,
    contracts=_CONTRACTS,
    rows="parameters, of which there is one set however large the batch",
    studies=(
        {"shapes": [[3, 5], [2, _EMA_BLOCK]]},
        {"shapes": [[_EMA_BLOCK + 1], [0], [1]]},
        {"shapes": [[4, 3, 2]], "decay": 0.5},
    ),
    extremes=tuple({"shapes": [[3], [2, 2]], "decay": decay} for decay in (0.9, 0.0, 1.0)),
    axes=dict.fromkeys((*_AVERAGES, *_PARAMETERS), "row column"),
)
