"""Whether a row is summed alike in batches of other sizes, on a GPU that is not there.

Under `batch_invariant` a kernel's configuration and tiles are the same in every batch; but Triton
compiles it anew where an argument is 1 or a multiple of 16, and could then lay its tiles out over
threads in another way, which is the order in which sums over threads are taken. So the kernels of
a twin's first named shape are compiled for batches of several sizes, and of each the shapes and
layouts of all sums, scans and matrix products are compared, as they stand in Triton's GPU IR.
"""

import re
from collections.abc import Sequence
from typing import Any

from ...core.checks import refuse
from ..processes import Workers
from .targets import architecture

BATCHES = (1, 2, 3, 16)
_SUMS = re.compile(r'"tt\.reduce"|"tt\.scan"|tt\.dot |ttng\.warp_group_dot |^\s*\}\) .*: \(tensor')
_TENSOR = re.compile(r"tensor<([^<>]*(?:<[^<>]*>)?[^<>]*)>")
_ALIAS = re.compile(r"^(#\w+) = (.*)$", re.MULTILINE)
Order = tuple[str, ...]


def order_of_sums(ttgir: str) -> Order:
    """Return the shape and layout of each operand and result of what sums, in order.

    Parameters
    ----------
    ttgir : str
        A kernel in Triton's GPU IR.

    Returns
    -------
    tuple of str
        Layouts in full, since their names are numbers.
    """
    layouts = dict(_ALIAS.findall(ttgir))

    def in_full(text: str) -> str:
        return re.sub(r"#\w+", lambda name: layouts.get(name[0], name[0]), text)

    lines = [line for line in ttgir.splitlines() if _SUMS.search(line)]
    return tuple(in_full(tensor) for line in lines for tensor in _TENSOR.findall(line))


def inspect_batches(names: Sequence[str], archs: Sequence[str], dtypes: Sequence[str]) -> list[str]:
    """Compare twins' kernels over batches.

    Parameters
    ----------
    names : sequence of str
        Operations; empty for all that have rows.
    archs : sequence of str
        As in `targets.ARCHITECTURES`; empty for sm_90.
    dtypes : sequence of str

    Returns
    -------
    list of str
        A line for each kernel: what was compared, or what differs, which begins with "DIFFERS".

    Raises
    ------
    ValueError
        If an operation has no rows, or an architecture is unknown.
    """
    from ..twins.catalogue import TWINS
    from ..twins.find import expect_twins
    from ..twins.twin import Rows

    expect_twins(list(names))
    for name in names:
        if isinstance(reason := TWINS[name].rows, str):
            refuse("op", "one whose results have rows", repr(name), reason)
    chosen = [name for name in names or TWINS if isinstance(TWINS[name].rows, Rows)]
    lines: list[str] = []
    for arch in archs or ("sm_90",):
        architecture(arch)
        jobs = [(n, d) for n in chosen for d in dtypes if d in TWINS[n].dtypes]
        with Workers(1, _prepare, (arch,)) as pool:  # a process compiles for one architecture
            found = pool.map(_compare, *zip(*jobs, strict=True), [arch] * len(jobs))
            lines += [line for some in found for line in some]
    return lines


def _prepare(arch: str) -> None:
    from .inspect import _prepare as prepare

    prepare(arch)


def _compare(name: str, dtype: str, arch: str) -> list[str]:
    """Compile one twin for each batch, and say of each kernel whether its sums are the same."""
    from ..twins.catalogue import TWINS

    twin = TWINS[name]
    seen: dict[str, list[Order]] = {}
    for batch in BATCHES:
        for kernel, ttgir in _compiled(twin, dtype, batch):
            seen.setdefault(kernel, []).append(order_of_sums(ttgir))
    lines = []
    for kernel, orders in seen.items():
        about = f"{arch} {name} {dtype} {kernel}"
        if len(set(orders)) == 1:
            lines.append(f"{about}: {len(orders[0])} layouts, the same in batches of {BATCHES}")
        else:
            lines.append(f"DIFFERS: {about}: sums are laid out otherwise in batches of {BATCHES}")
    return lines


def _compiled(twin: Any, dtype: str, batch: int) -> list[tuple[str, str]]:
    """Compile the forward pass of a twin's first named shape, with another batch."""
    import torch

    from ...kernels.common.launch import batch_invariant, recording
    from ..twins.draw import ShapesAlone

    inputs = twin.inputs(next(iter(twin.shapes.values())), ShapesAlone(getattr(torch, dtype)))

    def of_batch(named: dict[str, Any]) -> dict[str, Any]:
        return {name: _resized(x, twin.rows.axes.get(name), batch) for name, x in named.items()}

    with batch_invariant(), recording(compile_only=True) as log, torch.no_grad():
        twin.kernel(**of_batch(inputs.tensors), **of_batch(inputs.options))
    if errors := [entry.error for entry in log if entry.error]:
        raise RuntimeError(f"{twin.name}: {errors[0]}")
    return [(entry.kernel, entry.compiled.asm["ttgir"]) for entry in log]


def _resized(x: Any, axis: int | None, n: int) -> Any:
    """Return a tensor without memory whose axis has another length."""
    if axis is None or x is None:
        return x
    shape = list(x.shape)
    shape[axis] = n
    return x.new_empty(shape)
