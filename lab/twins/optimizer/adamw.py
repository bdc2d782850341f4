"""The twin of AdamW, over lists of tensors."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.optimizer import adamw as core_adamw
from ....kernels.optimizer import adamw as triton_adamw
from ....kernels.optimizer import adamw_update
from ..strategies import any_inputs, tensor_shapes
from ..twin import Case, Cost, Draw, Inputs, Twin, with_constant

_MOST_TENSORS = 4
_KINDS = ("parameter", "gradient", "first_moment", "second_moment")
# parameter_0, gradient_0, ...: as the instruments name tensors, one by one
_ARGUMENTS = tuple(f"{kind}_{i}" for i in range(_MOST_TENSORS) for kind in _KINDS)
_RESULTS = (
    "gradient_norm",
    *(f"new_{kind}_{i}" for i in range(_MOST_TENSORS) for kind in _KINDS if kind != "gradient"),
)


def _of_lists(tensors: dict[str, Any]) -> list[list[Any]]:
    """Sort named tensors into the four lists."""
    return [[x for name, x in tensors.items() if name.startswith(kind)] for kind in _KINDS]


def _flat(results: core_adamw.AdamWResults) -> tuple[Any, ...]:
    """Put the results in the order of `_RESULTS`."""
    by_tensor = zip(*results[:3], strict=True)
    return (results.gradient_norm, *(x for of_tensor in by_tensor for x in of_tensor))


def _named(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell tensors from options."""
    tensors = {name: x for name, x in options.items() if name in _ARGUMENTS}
    return tensors, {name: x for name, x in options.items() if name not in _ARGUMENTS}


def _adamw_forward(mixed: bool = False, **arguments: Any) -> tuple[tuple[Any, ...], None]:
    tensors, options = _named(arguments)
    return _flat(core_adamw.adamw(*_of_lists(tensors), **options)), None


def _moments_in_float32(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the moments in float32, whatever the parameters' dtype (float64 stays).

    Mixed: of three tensors one is all of one dtype, one has a float32 parameter, one a gradient.
    """

    def wide(x: Any) -> Any:
        return x.float() if x.is_floating_point() and x.element_size() < 4 else x

    @functools.wraps(operation)
    def wrapped(mixed: bool = False, **arguments: Any) -> tuple[Any, ...]:
        tensors, options = _named(arguments)
        parameters, gradients, *moments = _of_lists(tensors)
        if mixed:
            parameters[1::3] = map(wide, parameters[1::3])
            gradients[2::3] = map(wide, gradients[2::3])
        moments = [[wide(moment) for moment in each] for each in moments]
        return _flat(operation(parameters, gradients, *moments, **options))

    return wrapped


def _adamw_inputs(case: Case, draw: Draw) -> Inputs:
    tensors: dict[str, Any] = {}
    std = case.get("magnitude", 1.0)  # of the gradients
    for i, shape in enumerate(case["shapes"]):
        first, spread = draw.normal(*shape, std=0.3 * std), draw.normal(*shape, std=std)
        drawn = (draw.normal(*shape), draw.normal(*shape, std=std), first, spread * spread)
        tensors |= {f"{kind}_{i}": x for kind, x in zip(_KINDS, drawn, strict=True)}
    decay = case.get("weight_decay", 0.0)
    options = {
        "step": case.get("step", 10),
        "lr": case.get("lr", 0.01),
        "betas": tuple(case.get("betas", (0.9, 0.999))),
        "eps": case.get("eps", 1e-8),
        # Matrices decay, vectors do not.
        "weight_decay": [decay if len(shape) > 1 else 0.0 for shape in case["shapes"]],
        "max_norm": case.get("max_norm"),
        "epsilon": case.get("epsilon", "pytorch"),
        "mixed": case.get("mixed", False),
        "norm_block": case.get("norm_block"),
    }
    return Inputs(tensors, options)


def _adamw_real(activations: dict[str, np.ndarray]) -> Inputs:
    """Two of the block's weights; another draw of them plays the gradients and moments."""
    tensors: dict[str, Any] = {}
    for i, name in enumerate(("w_qkv", "norm_bias")):
        x = activations[name]
        drawn = (x, 0.1 * x[::-1], 0.05 * x, 0.01 * x * x)
        tensors |= {f"{kind}_{i}": y for kind, y in zip(_KINDS, drawn, strict=True)}
    return Inputs(tensors, {"step": 3, "lr": 1e-3, "weight_decay": [0.1, 0.0], "max_norm": 1.0})


def _adamw_cost(case: Case, itemsize: int) -> tuple[Cost, None]:
    n = sum(math.prod(shape) for shape in case["shapes"])
    reads, writes = {}, {"gradient_norm": 4}
    for i, shape in enumerate(case["shapes"]):
        for kind in _KINDS:
            size = math.prod(shape) * (4 if kind.endswith("moment") else itemsize)
            reads[f"{kind}_{i}"] = size
            if kind != "gradient":
                writes[f"new_{kind}_{i}"] = size
    # norm (2); clip, m (3), v (4), √, correction, ε, quotient, step size, decay (2), differences
    return Cost(1 + 18 * n, reads, writes), None


_ADAMW_BLOCK = adamw_update.BLOCK
# Some of GPT-2's: the token table, a matrix, a bias and a norm's weight.
_GPT2_SHAPES: list[list[int]] = [[50257, 768], [768, 2304], [2304], [768]]

_TABLE = """
        table.rows[table.n_tensors, table.WIDTH]; 1 <= table.n_tensors; grid[n_blocks]
        1 <= table.rows.value[:, 0] <= 2**40; 0 <= table.rows.value[:, 1] < n_blocks
        table.rows.value[0, 1] == 0; addresses(table.rows.value[:, 2:9], table.rows.value[:, 0])
    """
_CONTRACTS = {
    "gradient_squares_kernel": f"""
        partial_ptr[n_blocks]; {_TABLE}
    """,
    "gradient_norm_kernel": """
        partial_ptr[n_partial]; norm_ptr[1]; n_partial <= MOST_COUNTED
    """,
    "adamw_kernel": f"""
        norm_ptr[1]; {_TABLE}
    """,
}

adamw = Twin(
    name="adamw",
    forward=with_constant(_adamw_forward, None, "NORM_BLOCK"),
    backward=None,
    kernel=with_constant(_moments_in_float32(triton_adamw.adamw), adamw_update, "NORM_BLOCK"),
    eager=with_constant(_moments_in_float32(triton_adamw.adamw_eager), None, "NORM_BLOCK"),
    arguments=_ARGUMENTS,
    results=_RESULTS,
    statistics=_RESULTS,
    cases=st.fixed_dictionaries(
        {
            "shapes": tensor_shapes(_ADAMW_BLOCK, _MOST_TENSORS),
            "step": st.sampled_from([1, 2, 1000]),
            "betas": st.sampled_from([[0.9, 0.999], [0.9, 0.95], [0.0, 0.5]]),
            "eps": st.sampled_from([1e-8, 1e-5]),
            "epsilon": st.sampled_from(core_adamw.EPSILONS),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "max_norm": st.sampled_from([None, 0.5, 1e6]),
            "magnitude": st.sampled_from([1.0, 0.001, 100.0]),
            **any_inputs,
        }
    ),
    corners=(
        {
            "shapes": [[3, 5], [0], [1], [2, _ADAMW_BLOCK]], "step": 2, "weight_decay": 10.0,
            "max_norm": 1.0, "seed": 1,
        },
        {
            "shapes": [[3 * _ADAMW_BLOCK + 5]], "step": 1, "eps": 0.01, "epsilon": "tensorflow",
            "seed": 2,
        },
        # Each of three pairs of dtypes takes a launch: a mutant that mixed up their sums survived.
        {"shapes": [[3, 5], [7], [2, 9], [4]], "mixed": True, "max_norm": 0.5, "seed": 3},
        # Three sums, two at a time: mutants survived that were wrong beyond 8 million numbers.
        # The norm is so small that the 1e-6 beside it is seen: a mutant survived that took it off.
        {
            "shapes": [[3], [5], [7]], "max_norm": 0.0005, "magnitude": 0.001, "norm_block": 2,
            "seed": 4,
        },
    ),
    inputs=_adamw_inputs,
    real=_adamw_real,
    shapes={"gpt2, one of each": {"shapes": _GPT2_SHAPES}, "one": {"shapes": [[768, 768]]}},
    cost=_adamw_cost,
    contracts=_CONTRACTS,
    rows=(
        "parameters, of which there is one set however large the batch; "
        "the gradient's norm is all of theirs"
    ),
    studies=(
        {"shapes": [[3, 5], [2, _ADAMW_BLOCK]], "max_norm": 1.0},
        {"shapes": [[_ADAMW_BLOCK + 1], [0], [1]], "weight_decay": 0.1},
        {"shapes": [[4, 3, 2]]},
    ),
    extremes=({"shapes": [[3], [2, 2]], "max_norm": 1.0, "weight_decay": 0.1},),
    axes=dict.fromkeys((*_ARGUMENTS, *_RESULTS), "row column"),
    # m and v are sums of two rounded products; a clipped gradient is rounded once more.
    roundings=8.0,
    shared_kernels=(
        adamw_update.gradient_squares_kernel,
        adamw_update.gradient_norm_kernel,
        adamw_update.adamw_kernel,
    ),
)  # fmt: skip
