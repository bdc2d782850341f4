"""Half precision in plain PyTorch: what it sums or multiplies is float32, as in the kernels.

PyTorch on a CPU adds bfloat16 numbers one by one in bfloat16, which counts to 256, and writes a
product of float16 matrices in float16, which ends at 65504.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
HALF = (torch.float16, torch.bfloat16)


def at_least_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function compute, and return, in float32 what it is given in half precision.

    Parameters
    ----------
    function : callable
        Takes tensors.

    Returns
    -------
    callable
    """

    @functools.wraps(function)
    def widened(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        by_place: Any = [_widen(x) for x in args]
        by_name: Any = {name: _widen(x) for name, x in kwargs.items()}
        return function(*by_place, **by_name)

    return widened


def _widen(argument: Any) -> Any:
    is_half = isinstance(argument, torch.Tensor) and argument.dtype in HALF
    return argument.float() if is_half else argument


def product_in_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply matrices into float32 at least; those of float16 without a sum beyond 65504.

    float16's gradient is rounded on its way back, as the kernels store it. bfloat16 has float32's
    range and is multiplied as it is, which is faster.

    Parameters
    ----------
    a, b : torch.Tensor
        As `a @ b` takes them.

    Returns
    -------
    torch.Tensor
    """
    if a.dtype != torch.float16:
        return _widen(a @ b)
    product = _widen(a.float() @ b.float())  # which autocast makes half precision again
    if product.requires_grad:
        product.register_hook(lambda d: d.to(torch.float16).to(d.dtype))
    return product
