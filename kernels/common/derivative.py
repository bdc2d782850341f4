"""What has no second derivative says so.

The gradients that a kernel computes carry no graph. Under `create_graph=True` they would look like
constants, and a gradient penalty would lose its own derivative in silence. PyTorch's
`once_differentiable` is not enough: it passes where the incoming gradient requires none, as that of
`gelu(x).sum()`, and `torch.autograd.grad` never runs the node in which it raises.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch


def first_derivative_only(operation: str) -> Callable[..., Any]:
    """Let the backward pass of an autograd function refuse `create_graph=True`; a decorator.

    Parameters
    ----------
    operation : str
        Its public name, for the error.

    Returns
    -------
    callable
        For `backward`, below `@staticmethod`.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def once(ctx: Any, *d_results: torch.Tensor | None) -> Any:
            # autograd enables gradients here for create_graph alone. Of what is compiled,
            # AOTAutograd refuses second derivatives itself.
            if not torch.compiler.is_compiling() and torch.is_grad_enabled():
                raise NotImplementedError(
                    f"{operation} has no second derivative: its gradient was asked for with "
                    "create_graph=True (write the part that is differentiated twice in plain "
                    "PyTorch)"
                )
            return backward(ctx, *d_results)

        return once

    return decorate
