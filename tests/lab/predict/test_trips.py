"""Loops' turns from TTIR, by hand; data-dependent ones are named."""

import numpy as np
import pytest

from gptwin.lab.predict.trips import UnknownTrips, source_loops, touched
from gptwin.lab.predict.whole import makespan

HEAD = """
#loc = loc("k.py":1:0)
module {
  tt.func public @k(%x: !tt.ptr<f16> loc(#loc), %n: i32 loc(#loc)) attributes {noinline = false} {
    %c0 = arith.constant 0 : i32 loc(#loc)
    %c16 = arith.constant 16 : i32 loc(#loc)
    %block = arith.constant 64 : i32 loc(#loc)
    %id = tt.get_program_id x : i32 loc(#loc)
    %ptrs = tt.splat %x : !tt.ptr<f16> -> tensor<64x!tt.ptr<f16>> loc(#loc)
"""
LOAD = "      %v{0} = tt.load %ptrs : tensor<64x!tt.ptr<f16>> loc(#loc)\n"
TAIL = "    tt.return loc(#loc)\n  } loc(#loc)\n} loc(#loc)\n"
FOR = "    scf.for %i{0} = {1} to {2} step {3}  : i32 {{\n"
END = '    } loc("k.py":7:0)\n'


def test_a_causal_loop_turns_as_often_as_its_program_says():
    code = HEAD + (
        "    %next = arith.addi %id, %c16 : i32 loc(#loc)\n"
        "    %end = arith.muli %next, %block : i32 loc(#loc)\n"
        "    %least = arith.minsi %end, %n : i32 loc(#loc)\n"
    )
    code += FOR.format(0, "%c0", "%least", "%block") + LOAD.format(0) + END + TAIL
    (loop,) = source_loops(code, (3,), {"n": 1100})
    # 16, 17 and 18 blocks of 64 would be 1,024, 1,088 and 1,152 keys, of which there are 1,100.
    assert loop.turns.tolist() == [16, 17, 18] and loop.where == "k.py:7"
    assert (loop.flops, loop.bytes) == (0, 128)


def test_loops_within_loops_multiply_and_conditions_share():
    code = HEAD + "    %odd = arith.remsi %id, %two : i32 loc(#loc)\n"
    code = code.replace("%c16 = arith.constant 16", "%two = arith.constant 2 : i32 loc(#loc)\n"
                        "    %c16 = arith.constant 16")  # fmt: skip
    code += "    %is = arith.cmpi eq, %odd, %c0 : i32 loc(#loc)\n    scf.if %is {\n"
    code += FOR.format(0, "%c0", "%n", "%block") + FOR.format(1, "%c0", "%c16", "%two")
    code += LOAD.format(0) + END + END + "    } loc(#loc)\n" + TAIL
    outer, inner = source_loops(code, (2, 2), {"n": 128})
    assert (outer.innermost, inner.innermost) == (False, True)
    assert outer.turns.tolist() == [2, 0, 2, 0] and inner.turns.tolist() == [16, 0, 16, 0]


def test_what_depends_on_data_is_named():
    code = HEAD + "    %end = tt.load %p : !tt.ptr<i32> loc(#loc)\n"
    code = code.replace("%n: i32", "%p: !tt.ptr<i32>")
    code += FOR.format(0, "%c0", "%end", "%block") + LOAD.format(0) + END + TAIL
    with pytest.raises(UnknownTrips, match=r"k\.py:7: a loop whose bounds depend on data"):
        source_loops(code, (1,), {})


def test_tensors_are_told_by_their_direction():
    code = HEAD.replace("%n: i32", "%y: !tt.ptr<f16> loc(#loc), %n: i32")
    code += (
        FOR.format(0, "%c0", "%n", "%block")
        + LOAD.format(0)
        + (
            "      %out = tt.splat %y : !tt.ptr<f16> -> tensor<64x!tt.ptr<f16>> loc(#loc)\n"
            "      tt.store %out, %v0 : tensor<64x!tt.ptr<f16>> loc(#loc)\n"
            "      tt.store %ptrs, %v0 : tensor<64x!tt.ptr<f16>> loc(#loc)\n"
        )
        + END
        + TAIL
    )
    assert touched(code) == ({"x"}, {"x", "y"})


def test_places_take_the_next_block_in_order():
    assert makespan(np.array([3.0, 1.0, 1.0, 1.0]), 2) == 3
    assert makespan(np.array([1.0, 1.0, 1.0, 3.0]), 2) == 4
    assert makespan(np.ones(7), 3) == 3
