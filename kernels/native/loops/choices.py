"""A reduction that is only wanted where a condition holds is done when it holds for some row.

A kernel writes `tl.where(is_too_large, of_scaled_rows, of_rows)` and has both sums computed: on a
GPU a branch would cost registers. Here it costs nothing, and most often only one sum is needed. The
other is put off until the `where` is met.
"""

from ..instructions.arithmetic import ELEMENTWISE
from ..instructions.ttir import Op, Value
from .evaluation import VIEWS
from .reductions import Reduce
from .reports import Reports

_SIDES = ((1, True), (2, False))  # a select's operand, and the condition that takes it


class Choices(Reports):
    """Puts reductions off."""

    def __init__(self, *, checked: bool, vectors: bool) -> None:
        super().__init__(checked=checked, vectors=vectors)
        self.put_off: dict[tuple[Op, bool], list[Op]] = {}  # by the select and its condition

    def execute_reduction(self, op: Op) -> None:
        """Let a reduction share the pending nest, or put it off."""
        choice = choice_of(op)
        if choice is None:
            self.enqueue(Reduce(op))
        else:
            self.put_off.setdefault(choice, []).append(op)

    def execute_what_was_put_off(self, select: Op) -> None:
        """Do, before a select, the reductions that it may choose, if it chooses any."""
        for side in (True, False):
            reductions = self.put_off.pop((select, side), None)
            if reductions is not None:
                self.reduce_if(self.any_is(select.operands[0], wanted=side), reductions)

    def any_is(self, condition: Value, *, wanted: bool) -> str:
        """Test whether a condition is true, or false, for any element."""
        buffer = None if condition.shape is None else self.materialise(condition)
        self.flush()
        self.out = self.scopes[self.control]
        if buffer is not None and condition not in self.rows:
            return self.any_element(buffer, wanted=wanted)
        held = self.scalars[condition] if buffer is None else self.read(buffer, (self.row,)).v
        return held if wanted else self.set(f"xor i1 {held}, true")

    def reduce_if(self, chosen: str, reductions: list[Op]) -> None:
        """Write reductions that are done if a condition holds; else their results are anything."""
        results = {v: self.new_buffer(v) for op in reductions for v in op.results}
        outer, end = self.scopes[self.control], self.fresh("end")
        control, buffers = self.control, self.buffers | results
        scope = self.region_scope("chosen")
        self.homes |= results
        for op in reductions:
            self.enqueue(Reduce(op))
        self.flush()
        self.scopes.pop()
        self.control, self.buffers, self.out = control, buffers, outer
        self.fork(chosen, scope.first, end, likely=False)
        outer.lines += [f"{scope.first}:", *scope.lines, f"  br label %{end}"]
        self.begin(end)


def choice_of(reduction: Op) -> tuple[Op, bool] | None:
    """Return the select, and its condition, that alone decides if a reduction's tiles are used."""
    choices: set[tuple[Op, bool]] = set()
    seen = set(reduction.results)
    stack = list(reduction.results)
    while stack:
        value = stack.pop()
        for user in value.users:
            if user.block is not reduction.block or user.name not in ELEMENTWISE | VIEWS:
                return None
            if user.name == "arith.select" and value is not user.operands[0]:
                choices |= {(user, side) for at, side in _SIDES if user.operands[at] is value}
            else:
                stack += [v for v in user.results if v not in seen]
                seen.update(user.results)
    is_tile = all(v.shape is not None for v in reduction.results)
    return choices.pop() if len(choices) == 1 and is_tile else None
