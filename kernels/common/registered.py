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
- Each parameter has a type: a tensor, a number, a string, a bool, a dtype, or a list of them. A
  dataclass or named tuple of these, and a tuple of tensors, are taken apart for the operator and
  put together again.
- It writes into no argument, and returns none. (Inductor stumbles over optional arguments that
  are written into.) Parameters for views to write into are named, `@registered(without=("out",))`:
  who gives them is itself called by a registered function.
- Its results are new tensors: an operator may not return None, nor two results that share memory.
  None travels as an empty tensor, and shared memory is copied.
- The autograd function is given no tensor twice, as in attention(x, x, x): Dynamo refuses that.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .launch import is_tracing, tracing

# An empty tensor of this dtype, which no host function uses, stands for None among the results.
_ABSENT = torch.uint16


def registered(
    host_function: Callable[..., Any] | None = None, *, without: Sequence[str] = ()
) -> Callable[..., Any]:
    """Let `torch.compile` take a host function for one operator; a decorator.

    Parameters
    ----------
    host_function : callable
        Its parameters and results annotated.
    without : sequence of str
        Optional parameters that the operator has not.

    Returns
    -------
    callable
        With the same parameters and results.
    """
    if host_function is None:
        return functools.partial(registered, without=without)

    function = host_function
    whole = inspect.signature(function, eval_str=True)
    taken_apart = {p.name: _parts(p.annotation) for p in whole.parameters.values()}
    signature = _operator_signature(whole, taken_apart, without)
    names = tuple(whole.parameters)

    @functools.wraps(function)
    def returning_tensors(*args: Any, **options: Any) -> Any:
        flat = signature.bind(*args, **options).arguments
        given: dict[str, Any] = {}
        for name, parts in taken_apart.items():
            if not parts:
                given |= {name: flat[name]} if name in flat else {}
            else:
                values = [flat[f"{name}_{part}"] for part in parts]
                given[name] = _put_together(whole.parameters[name].annotation, values)
        return _as_new_tensors(function(**given))

    vars(returning_tensors)["__signature__"] = signature
    operator = torch.library.custom_op(
        f"gptwin::{function.__name__}", returning_tensors, mutates_args=()
    )

    @operator.register_fake
    def results_without_values(*args: Any, **options: Any) -> Any:
        with tracing():
            return returning_tensors(*args, **options)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        # One host function calls another directly, also while a compiler asks for shapes.
        if is_tracing() or not torch.compiler.is_compiling():
            return function(*args, **options)
        flat = {}
        for name, value in (*zip(names, args, strict=False), *options.items()):
            parts = taken_apart[name]
            if not parts:
                flat[name] = value
            for i, part in enumerate(parts):
                by_index = value is None or isinstance(value, tuple)
                flat[f"{name}_{part}"] = (
                    (None if value is None else value[i]) if by_index else getattr(value, part)
                )
        results = operator(**flat)
        if not isinstance(results, tuple):
            return results
        return tuple(None if result.dtype == _ABSENT else result for result in results)

    return call


def _parts(annotation: Any) -> tuple[str, ...]:
    """Name the parts of a class with fields or of a tuple of tensors, perhaps None; else none."""
    if _has_fields(annotation):
        return tuple(typing.get_type_hints(annotation))
    for choice in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(choice) is tuple:
            return tuple(str(i) for i in range(len(typing.get_args(choice))))
    return ()


def _has_fields(annotation: Any) -> bool:
    """Say whether an annotation is a dataclass or a named tuple."""
    return dataclasses.is_dataclass(annotation) or hasattr(annotation, "_fields")


def _put_together(annotation: Any, values: list[Any]) -> Any:
    """Undo `_parts`."""
    if _has_fields(annotation):
        return annotation(*values)
    return None if values[0] is None else tuple(values)


def _operator_signature(
    signature: inspect.Signature, taken_apart: dict[str, tuple[str, ...]], without: Sequence[str]
) -> inspect.Signature:
    """Write the host function's signature as an operator's schema can say it."""
    parameters = []
    for p in signature.parameters.values():
        kind = p.POSITIONAL_OR_KEYWORD  # a schema allows no keyword-only tensors
        if p.name in without:
            continue
        if not taken_apart[p.name]:
            parameters.append(p.replace(kind=kind))
            continue
        types_of_parts = dict.fromkeys(taken_apart[p.name], torch.Tensor | None)
        if _has_fields(p.annotation):
            types_of_parts = typing.get_type_hints(p.annotation)
        parameters += [
            inspect.Parameter(f"{p.name}_{part}", kind, annotation=types_of_parts[part])
            for part in taken_apart[p.name]
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
