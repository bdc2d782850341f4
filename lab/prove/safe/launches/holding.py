"""Does a contract hold of real launches? If not, what is proved from it is about others."""

import ast
import itertools
from collections.abc import Iterator

import torch

from . import compile as front_end
from .call import Call
from .contract import Contract, Reading


def violations(contract: Contract, call: Call) -> list[str]:
    """Say what a launch does not have that its kernel's contract promises.

    Parameters
    ----------
    contract : Contract
    call : Call
        With tensors, which need no memory; of those that have some, tables are looked into.

    Returns
    -------
    list of str
        Facts, shapes and the grid that do not hold, with what was found.
    """
    reading = _reading(contract, call)
    tensors = _tensors(call)
    return [
        *_wrong_shapes(reading, tensors),
        *_wrong_grid(reading, call.grid),
        *_wrong_facts(reading),
        *_wrong_tables(reading, tensors),
    ]


def sizes(contract: Contract, call: Call) -> dict[str, int]:
    """Return the sizes of a launch, by the names that its contract has for them.

    Parameters
    ----------
    contract : Contract
    call : Call

    Returns
    -------
    dict of str to int
    """
    known = _reading(contract, call).known
    return {n: v for n, v in known.items() if isinstance(v, int) and not isinstance(v, bool)}


def _tensors(call: Call) -> dict[str, torch.Tensor]:
    return {
        name.removesuffix(".ptr"): value
        for name, value in front_end.arguments(call).items()
        if isinstance(value, torch.Tensor)
    }


def _reading(contract: Contract, call: Call) -> Reading:
    """Read a contract with a launch's numbers."""
    known = {n: v for n, v in front_end.arguments(call).items() if isinstance(v, int)}
    known |= front_end.constants(call) | {"itemsize": front_end.itemsize(call)}
    reading = Reading(contract, known, call.function.fn.__globals__)
    _learn_sizes(reading, _tensors(call), call.grid)
    return reading


def _learn_sizes(reading: Reading, tensors: dict[str, torch.Tensor], grid: tuple[int, ...]) -> None:
    """Find the sizes that the kernel is not told in shapes, and in the grid."""
    contract = reading.contract
    for _ in range(2):
        for name, tensor in tensors.items():
            sizes = contract.shapes.get(name, ())
            if len(sizes) == tensor.ndim:
                for node, n in zip(sizes, tensor.shape, strict=True):
                    _learn(reading, node, n)
            else:
                _learn_product(reading, list(sizes), tensor.numel())
        for node, n in zip(contract.grid, grid, strict=False):
            _learn(reading, node, n)


def _learn(reading: Reading, node: ast.expr, n: int) -> None:
    if isinstance(node, ast.Name) and _is_unknown(reading, node):
        reading.known[node.id] = n


def _learn_product(reading: Reading, sizes: list[ast.expr], total: int) -> None:
    """Learn the only unknown size of a tensor whose axes were merged."""
    unknown = [node for node in sizes if isinstance(node, ast.Name) and _is_unknown(reading, node)]
    if len(unknown) != 1:
        return
    rest = 1
    for node in sizes:
        if node is not unknown[0]:
            try:
                rest *= reading.value(node)
            except ValueError:
                return
    if rest:
        reading.known[unknown[0].id] = total // rest


def _is_unknown(reading: Reading, node: ast.Name) -> bool:
    taken = node.id in reading.known or node.id in reading.contract.names
    return not taken and node.id not in reading.module


def _wrong_shapes(reading: Reading, tensors: dict[str, torch.Tensor]) -> Iterator[str]:
    for name in reading.contract.shapes:
        if name not in tensors:
            continue
        tensor = tensors[name]
        try:
            shape, strides = reading.shape(name), reading.strides(name)
        except ValueError:
            continue  # a size that nothing tells
        same = list(tensor.shape) == shape if tensor.ndim == len(shape) else False
        packed = f"{name}.strides[0]" not in reading.known and strides is None
        total = 1
        for n in shape:
            total *= n
        if not same and not (total == tensor.numel() and (packed or strides is not None)):
            yield f"{name}{shape}, got {list(tensor.shape)}"
        if packed and not tensor.is_contiguous():
            yield f"{name} row after row, got strides {list(tensor.stride())}"


def _wrong_grid(reading: Reading, grid: tuple[int, ...]) -> Iterator[str]:
    found = [*grid, 1, 1][:3]
    try:
        expected = reading.grid()
    except ValueError:
        return
    if expected != found:
        yield f"grid {expected}, got {found}"


def _wrong_facts(reading: Reading) -> Iterator[str]:
    for one in reading.contract.facts:
        if reading.known.get(one.where, "given") is None:
            continue
        try:
            holds = reading.fact(one)
        except (ValueError, TypeError):  # about a size that nothing tells, or what is absent
            continue
        if not holds:
            x, y = reading.value(one.left), reading.value(one.right)
            yield f"{one.text}, got {x} and {y}"


def _wrong_tables(reading: Reading, tensors: dict[str, torch.Tensor]) -> Iterator[str]:
    """Look into tables: the columns are as promised, and the memory of rows apart."""
    held = {n: t for n, t in tensors.items() if n in reading.contract.tables and not t.is_meta}
    for name, table in held.items():
        for number, row in enumerate(table.tolist()):
            for column, value in enumerate(row):
                if not all(reading.of_place(name, number, column, value)):
                    yield f"{name}[{number}, {column}], got {value}"
        if name in reading.contract.addresses:
            yield from _overlapping(reading, name, table.tolist())


def _overlapping(reading: Reading, name: str, rows: list[list[int]]) -> Iterator[str]:
    """Find memory of two rows, or of parts of two tensors, if numbers have a byte at the least."""
    where, length = reading.contract.addresses[name]
    assert where.stop is not None
    columns = range(reading.value(where.first), reading.value(where.stop))
    n = reading.value(length.first)
    spans = sorted(
        (row[column], row[column] + row[n], number)
        for number, row in enumerate(rows)
        for column in columns
    )
    for (first, end, one), (start, _, other) in itertools.pairwise(spans):
        if start < end and one != other:
            yield f"{name}: memory of their own, got rows {one} and {other} at one address"
        elif first < start < end:
            yield f"{name}: one tensor in a row, or tensors apart, got parts of one in row {one}"
