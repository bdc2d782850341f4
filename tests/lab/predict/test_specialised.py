"""Kernels whose warps share the work out: the warpgroups' loop, its common path, its turns."""

import dataclasses

import numpy as np
import pytest

from gptwin.lab.inspect.assembly import Resources
from gptwin.lab.inspect.sass import parse
from gptwin.lab.predict.machines import MACHINES
from gptwin.lab.predict.specialised import on_most_turns, warpgroup_loops
from gptwin.lab.predict.trips import UnknownTrips, consumer_turns
from gptwin.lab.predict.whole import Compiled, estimate

from .assembled import listing, op

PRODUCT = op("HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24, gsb0")
WAIT = op("WARPGROUP.DEPBAR.LE gsb0, 0x0")
MASK = [op(f"FSEL R{n}, R{n}, R9, P3", stall=2) for n in range(40, 60)]
SPECIALISED = parse(
    listing(
        op("USETMAXREG.DEALLOC.CTAPOOL 0xf0"),
        *(
            ".L_1",
            op("@!P1 BRA `(.L_9)"),
            PRODUCT,
            op("@P2 BRA `(.L_2)"),
            *MASK,
            ".L_2",
            WAIT,
            op("@P0 BRA `(.L_1)"),
        ),
        *(".L_3", PRODUCT, op("@P2 BRA `(.L_4)"), *MASK, ".L_4", WAIT, op("@P0 BRA `(.L_3)")),
        *(".L_5", *[op("UTMALDG.4D [UR8], [UR14]")] * 9, op("@P0 BRA `(.L_5)"), op("EXIT")),
        # A wait's stub, which tries again.
        *(".L_9", op("SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR6], R9"), op("@!P1 BRA `(.L_9)")),
        op("BRA `(.L_1)"),
    )
)
TTGIR = """
    %c0_i32 = arith.constant 0 : i32 loc(#loc2)
    %c1_i32 = arith.constant 1 : i32 loc(#loc2)
    %tile = tt.get_program_id x : i32 loc(#loc4)
    %end = arith.addi %tile, %n_key : i32 loc(#loc5)
    ttg.warp_specialize(%end) attributes {requestedRegisters = array<i32: 240, 24>}
    default {
      %first = ttng.warp_group_dot %a, %b, %cst, %false : !ttg.memdesc<64x64xbf16> loc(#loc9)
      %other:1 = scf.for %i = %c0_i32 to %n_key step %c1_i32 iter_args(%x = %c) -> (i32)  : i32 {
        scf.yield %x : i32 loc(#loc)
      } loc(#loc)
      %sums:2 = scf.for %m = %c0_i32 to %group step %c1_i32 iter_args(%s = %cst) -> (f32)  : i32 {
        %sum:2 = scf.for %j = %c1_i32 to %end step %c1_i32 iter_args(%t = %s) -> (f32)  : i32 {
          %scores = ttng.warp_group_dot %a, %b, %cst, %false : !ttg.memdesc<64x64xbf16> loc(#loc9)
"""


def test_each_warpgroup_has_a_loop_and_the_producers_is_none_of_them():
    alike = warpgroup_loops(SPECIALISED)
    assert len(alike) == 2 and alike[0].last < alike[1].first
    plain = [i for i in SPECIALISED if i.base != "USETMAXREG"]
    assert warpgroup_loops(plain) == []


def test_masks_are_left_out_of_a_turn_and_branches_still_meet():
    program, loop = on_most_turns(SPECIALISED, warpgroup_loops(SPECIALISED)[0])
    assert [i.base for i in loop.body(program)] == ["BRA", "HGMMA", "BRA", "WARPGROUP", "BRA"]
    assert program[loop.last].target == loop.first and program[loop.first + 2].target == 4
    assert len(program) == len(SPECIALISED) - len(MASK)
    assert [i.base for i in program[loop.last + 1 :]][:3] == ["HGMMA", "BRA", "FSEL"]  # another's
    stub = program[loop.first].target
    assert stub == len(program) - 3 and program[stub + 2].target == loop.first


def test_turns_of_the_loops_around_the_first_product_multiply():
    turns = consumer_turns(TTGIR, (3,), {"n_key": 5, "group": 2})
    assert turns.tolist() == [8, 10, 12]  # twice 1 to 5, 6 and 7


def test_turns_that_depend_on_data_are_not_told():
    with pytest.raises(UnknownTrips):
        consumer_turns(TTGIR, (3,), {"n_key": 5})
    with pytest.raises(UnknownTrips):
        consumer_turns(TTGIR.partition("%sums")[0], (3,), {"n_key": 5, "group": 2})


def test_two_warpgroups_share_the_tensor_cores():
    """A turn of both is two products of 64 cycles at least, and a program's turns come after it."""
    resources = Resources(12, 168, 0, 1024, 0, {}, {})
    kernel = Compiled(SPECIALISED, resources, TTGIR, (132,), {"n_key": 500, "group": 2}, {"x": 64})
    found = estimate(kernel, MACHINES["sm_90"])
    (one,) = found.loops
    assert found.blocks == 1 and one.bounds.pipes["tensor"] == 2 * 64
    assert one.steady.mean >= 128 and one.turns == pytest.approx(2 * (499 + 65.5))
    cycles = 2 * (499 + 131) * one.steady.mean  # of the last program, which ends last
    assert found.seconds is not None
    assert found.seconds[0] * MACHINES["sm_90"].clock == pytest.approx(cycles, rel=0.15)
    unknown = estimate(dataclasses.replace(kernel, scalars={}), MACHINES["sm_90"])
    assert unknown.seconds is None and "depends on data" in unknown.unknown
    assert np.isclose(unknown.loops[0].rate, one.rate)
