"""Kernels under `torch.compile`: host functions as operators that the compiler does not look into.

A compiler that traced into a host function would find Triton's launcher, the interpreter and the
door in launch.py there, and break its graph. So every host function that launches kernels and is
called from a `torch.autograd.Function` is registered:

    @registered
    def gelu_forward(x: torch.Tensor, approximate: str) -> torch.Tensor:

That line is all. While PyTorch compiles, the function's place is taken by the operator
`gptwin::<name>`; otherwise it is called as before, without a dispatcher's microseconds. The
instruments stand at the door inside the operator, so they see compiled runs as well.

The compiler also asks for the results' shapes without their values (a "fake" implementation). The
host function itself gives them: it allocates its results, and `launch` launches nothing then.

What an operator asks of the function, and what is done here so that it need not care:
- Each parameter has a type: a tensor, a number, a string, a bool, a dtype, or a list of them.
- It writes into no argument, and returns none. (Inductor stumbles over optional arguments that
  are written into.) A host function with an `out` argument is called by a registered one.
- Its results are new tensors: an operator may not return None, nor two results that share memory.
  None travels as an empty tensor, and shared memory is copied.
- The autograd function is given no tensor twice, as in attention(x, x, x): Dynamo refuses that.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import torch

from .launch import tracing

# An empty tensor of this dtype, which no host function uses, stands for None among the results.
_ABSENT = torch.uint16


def registered(host_function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `torch.compile` take a host function for one operator; a decorator.

    Parameters
    ----------
    host_function : callable
        Its parameters and results annotated.

    Returns
    -------
    callable
        With the same parameters and results.
    """
    signature = _operator_signature(inspect.signature(host_function, eval_str=True))

    @functools.wraps(host_function)
    def returning_tensors(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        return _as_new_tensors(host_function(**given))

    returning_tensors.__signature__ = signature  # type: ignore[attr-defined]
    operator = torch.library.custom_op(
        f"gptwin::{host_function.__name__}", returning_tensors, mutates_args=()
    )

    @operator.register_fake
    def results_without_values(*args: Any, **options: Any) -> Any:
        with tracing():
            return returning_tensors(*args, **options)

    @functools.wraps(host_function)
    def call(*args: Any, **options: Any) -> Any:
        if not torch.compiler.is_compiling():
            return host_function(*args, **options)
        results = operator(*args, **options)
        if not isinstance(results, tuple):
            return results
        return tuple(None if result.dtype == _ABSENT else result for result in results)

    return call


def _operator_signature(signature: inspect.Signature) -> inspect.Signature:
    """Leave out what an operator's schema cannot say: keyword-only tensors, results of None."""
    parameters = [
        p.replace(kind=p.POSITIONAL_OR_KEYWORD) if p.kind == p.KEYWORD_ONLY else p
        for p in signature.parameters.values()
    ]
    returned = _without_none(signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returned)


def _without_none(annotation: Any) -> Any:
    """Replace `Tensor | None` by `Tensor` in a return annotation."""
    if typing.get_origin(annotation) is tuple:
        parts = tuple(_without_none(part) for part in typing.get_args(annotation))
        return types.GenericAlias(tuple, parts)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return torch.Tensor
    return annotation


def _as_new_tensors(results: Any) -> Any:
    """Make what a host function returned into what an operator may return."""
    if not isinstance(results, tuple):
        return results
    device = next((result.device for result in results if result is not None), None)
    seen: set[int] = set()
    new = []
    for result in results:
        if result is None:
            result = torch.empty(0, dtype=_ABSENT, device=device)
        elif (memory := result.untyped_storage()._cdata) in seen:
            result = result.clone()
        else:
            seen.add(memory)
        new.append(result)
    return tuple(new)
