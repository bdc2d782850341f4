"""Row by row: where no row of a block's tiles needs another, all of the block is run for each row.

A program of layer norm has two rows, of which sums are taken before they are normalised. If each
pass went over both, the second would find less of a row in the nearest cache, and memory would wait
while the processor computes. This module finds out which values have rows; control.py writes the
loop over them.
"""

from collections.abc import Callable, Iterable

from ..instructions.arithmetic import ELEMENTWISE
from ..instructions.ttir import Block, Op, Value

WORTH_A_LOOP = 512  # elements of a row
_ELEMENT_FOR_ELEMENT = ELEMENTWISE | {"tt.load", "tt.store"}
_UNDERSTOOD = _ELEMENT_FOR_ELEMENT | {
    "tt.splat", "tt.expand_dims", "tt.broadcast", "tt.make_range", "tt.reduce", "arith.constant",
    "tt.get_program_id", "tt.get_num_programs", "tt.return", "scf.yield", "llvm.intr.assume",
}  # fmt: skip
_THE_SAME_EVERYWHERE = ("tt.splat", "arith.constant")


def rows_of(block: Block, may_be_one: Callable[..., bool]) -> set[Value]:
    """Return the tiles whose first axis is a block's rows, if these do not need one another.

    Parameters
    ----------
    block : Block
        A kernel's or a loop's body.
    may_be_one : callable
        Says whether two pointers may be to one tensor.

    Returns
    -------
    set of Value
        Empty if the block cannot be run row by row, or if that does not pay.
    """
    if any(op.name not in _UNDERSTOOD for op in block.ops):
        return set()
    tiles = {v for op in block.ops for v in (*op.operands, *op.results) if v.shape is not None}
    matrices = [v.shape for v in tiles if len(v.shape) == 2]
    heights = {shape[0] for shape in matrices if shape[0] > 1}
    is_worth_it = any(width >= WORTH_A_LOOP for _, width in matrices)
    if len(heights) != 1 or not is_worth_it or any(len(v.shape) > 2 for v in tiles):
        return set()
    rows, others = _sorted(block, {v for v in tiles if v.shape[0] in heights and len(v.shape) == 2})
    if (
        rows & others
        or not _carries_rows(block, rows)
        or not _in_any_order(block, rows, may_be_one)
    ):
        return set()
    return rows


def _sorted(block: Block, matrices: set[Value]) -> tuple[set[Value], set[Value]]:
    """Tell the vectors with an element for each row from those along a row, beside the matrices."""
    rows, others = set(matrices), set[Value]()
    alike = []
    for op in block.ops:
        if op.name == "tt.expand_dims":
            (others if op.integer("axis") == 0 else rows).add(op.operands[0])
        elif op.name == "tt.reduce":
            is_along = op.integer("axis") == 1 and op.operands[0] in matrices
            (rows if is_along else others).update(op.results)
            others.update(() if is_along else op.operands)
        elif op.name in _ELEMENT_FOR_ELEMENT:
            alike.append({v for v in (*op.operands, *op.results) if _has_a_place(v)})
    if block.parent is not None:
        alike += [set(pair) for pair in zip(block.arguments[1:], block.yielded, strict=True)]
    before = -1
    while before != len(rows) + len(others):
        before = len(rows) + len(others)
        for values in alike:
            for side in (rows, others):
                if values & side:
                    side |= values
    return rows, others


def _has_a_place(value: Value) -> bool:
    """Say whether a tile's elements differ from place to place."""
    is_same = value.op is not None and value.op.name in _THE_SAME_EVERYWHERE
    return value.shape is not None and not is_same


def _carries_rows(block: Block, rows: set[Value]) -> bool:
    """Say whether what a loop carries has rows or stays as it is: else each row would change it."""
    if block.parent is None:
        return True
    if block.parent.name != "scf.for":
        return False
    carried = zip(block.arguments[1:], block.yielded, strict=True)
    return all(a.shape is None or a is following or a in rows for a, following in carried)


def _in_any_order(block: Block, rows: set[Value], may_be_one: Callable[..., bool]) -> bool:
    """Say whether a row's stores can be made before another row's loads and stores."""
    loads, stores = _named(block, "tt.load"), _named(block, "tt.store")
    if any(store.operands[0] not in rows for store in stores):
        return False
    for store in stores:
        target = store.operands[0]
        for other in (*loads, *stores):
            pointer = other.operands[0]
            is_load = other.name == "tt.load"  # stores that overlap are in no order
            if pointer is not target and may_be_one(pointer, target, tested=is_load):
                return False
    return True


def _named(block: Block, name: str) -> Iterable[Op]:
    return [op for op in block.ops if op.name == name]
