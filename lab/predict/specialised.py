"""Kernels whose warps do not all do the same: a producer copies, warpgroups multiply.

In the machine code each partition is a stretch of its own. What binds such a kernel is the loop of
its warpgroups, which is the same for each; nothing orders them but the copies. So each warpgroup is
played as a block of its own, in several phases, the producer's warp is left out, and copies are
taken to be there in time: what TMA moves is not modelled.
"""

import dataclasses
from collections.abc import Sequence

from ..inspect.sass import Instruction, Loop, loops

WARPS = 4  # of a warpgroup


def warpgroup_loops(program: Sequence[Instruction]) -> list[Loop]:
    """Find the loop in which each warpgroup of a specialised kernel multiplies.

    Parameters
    ----------
    program : sequence of Instruction

    Returns
    -------
    list of Loop
        Empty for a kernel whose warps all do the same: none gives registers up to others.
    """
    if not any(i.base == "USETMAXREG" for i in program):
        return []
    return [
        loop for loop in loops(program)
        if loop.innermost and any(i.is_warpgroup_product for i in loop.body(program))
    ]  # fmt: skip


def on_most_turns(program: Sequence[Instruction], loop: Loop) -> tuple[list[Instruction], Loop]:
    """Leave out what a branch within the loop skips but for a few turns: masks at the edges.

    Parameters
    ----------
    program : sequence of Instruction
    loop : Loop

    Returns
    -------
    list of Instruction
        The program without it, branches renumbered.
    Loop
        Where the loop is now.
    """
    left_out: set[int] = set()
    for at in range(loop.first, loop.last):
        branch = program[at]
        if branch.base == "BRA" and branch.target is not None and at < branch.target <= loop.last:
            left_out |= {*range(at + 1, branch.target)}
    kept = [at for at in range(len(program)) if at not in left_out]
    # What is left out begins no loop: a branch to it goes to what follows.
    place = {at: n for n, at in enumerate(kept)}
    for at in sorted(left_out, reverse=True):
        place[at] = place[at + 1]
    moved = [
        i if i.target is None else dataclasses.replace(i, target=place[i.target])
        for i in (program[at] for at in kept)
    ]
    return moved, Loop(place[loop.first], place[loop.last], loop.innermost)
