"""Loops computed by hand, and what no simulation may beat."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.lab.inspect.sass import decode, loops
from gptwin.lab.predict.cost import UnknownInstruction, bounds, cost, work
from gptwin.lab.predict.machines import KINDS, MACHINES, TABLE, Machine
from gptwin.lab.predict.simulate import Run, simulate, steady
from gptwin.lab.predict.timeline import timeline

from .assembled import loop_of, op

H100, A100 = MACHINES["sm_90"], MACHINES["sm_80"]


def turn(program, m=H100, *, blocks=1, warps=4, turns=30):
    loop = loops(program)[0]
    run = Run(blocks, warps, {loop.last: turns}, loop.first, loop.last + 1)
    return simulate(program, m, run).per_turn[loop.last]


# --- the table of numbers ------------------------------------------------------------------------


def test_every_number_has_a_source_and_a_kind():
    names = {field for field in Machine.__dataclass_fields__ if field not in ("arch", "name")}
    for arch in MACHINES:
        own = [number.name for number in TABLE if arch in number.values]
        assert len(own) == len(set(own)), "a number stands twice"
        assert names - set(own) <= ({"gmma_column", "gmma_latency", "gmma_queue"})
    assert names == {number.name for number in TABLE}
    assert all(number.kind in KINDS and number.source for number in TABLE)
    assert names == {name for name in names if getattr(H100, name) > 0}


def test_costs_are_those_of_the_table():
    def pipes(text, m=H100):
        return cost(decode(0, text, 0), m).pipes

    assert pipes("FFMA R1, R2, R3, R5") == {"fp32": 2}  # R3 and R5 are in one bank
    assert pipes("FFMA R1, R2, R3, R4") == {"fp32": 2} and pipes("FADD R1, R2, R3") == {"fp32": 1}
    assert pipes("FADD R1, R2, R3", A100) == {"fma": 2}
    assert (
        pipes("IMAD.WIDE R2, R4, R5, R6") == {"fma": 4} and pipes("IMAD R2, R4, R5, R6")["fma"] == 2
    )
    assert pipes("MUFU.EX2 R1, R2") == {"xu": 8}
    assert pipes("HMMA.16816.F32 R4, R8, R12, R4", A100) == {"tensor": 10}
    assert pipes("HMMA.1688.F32.TF32 R4, R8, R12, R4", A100) == {
        "tensor": 10
    }  # half, twice as long
    # 16 columns: 8 cycles of the tensor core, 20 of shared memory for 16 columns and 64 rows.
    narrow = pipes("HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24, gsb0")
    assert narrow == {"tensor": 20, "shared": 20}
    wide = pipes("HGMMA.64x128x16.F32.BF16 R24, R8, gdesc[UR4], R24")
    assert wide == {"tensor": 64, "shared": 32}
    assert pipes("LDS.128 R4, [R2]") == {"shared": 16}
    assert pipes("@!PT LDS RZ, [RZ]") == {}


@pytest.mark.parametrize("text", ["XMAD R1, R2, R3", "UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR8]"])
def test_an_unknown_instruction_is_an_error_and_never_free(text):
    with pytest.raises(UnknownInstruction, match=re.escape(f"got {text.split()[0]}")):
        cost(decode(0x40, text, 0), H100)
    program = loop_of(op("FADD R1, R2, R3"), op(text))
    with pytest.raises(UnknownInstruction, match=re.escape("lab/predict/cost.py")):
        turn(program)


# --- loops by hand -------------------------------------------------------------------------------


def test_one_warp_waits_for_its_stall_counts():
    body = [op("FADD R1, R2, R3", stall=4) for _ in range(5)]
    # 5 stalls of 4; a branch back takes 8.
    assert turn(loop_of(*body)) == 5 * 4 + H100.jump


def test_a_full_pipe_sets_the_pace():
    body = [op("MUFU.EX2 R1, R2", write=0) for _ in range(8)]
    # 4 warps of 8 exponentials of 8 cycles.
    assert turn(loop_of(*body), warps=16) == pytest.approx(4 * 8 * 8, rel=0.01)
    # On A100 additions and integer products share a pipe, on H100 they do not.
    both = [op("FADD R1, R2, R3"), op("IMAD R4, R5, R6, R7")] * 8
    assert turn(loop_of(*both), A100, warps=16) == pytest.approx(4 * 8 * (2 + 2), rel=0.02)
    assert turn(loop_of(*both), H100, warps=16) == pytest.approx(4 * 17, rel=0.1)  # issue binds


def test_a_scoreboard_is_waited_for():
    body = [op("LDS R1, [R2]", write=0), op("FADD R3, R1, R1", wait=1)]
    # The load holds the port for 4 cycles and takes 30 more; then the addition, then the branch.
    assert turn(loop_of(*body)) == 4 + 30 + 1 + H100.jump


def test_products_are_waited_for_as_far_as_the_code_asks():
    def product(sign):
        return op(f"HGMMA.64x64x16.F32.BF16 R24, R8, gdesc[UR4], R24{sign}")

    group = [product(""), product(""), product(""), product(", gsb0")]
    drained = [*group, op("WARPGROUP.DEPBAR.LE gsb0, 0x0")]
    in_flight = [*group, op("WARPGROUP.DEPBAR.LE gsb0, 0x1")]
    # 4 products of 32 cycles, and 30 until the result is there.
    assert turn(loop_of(*drained)) == pytest.approx(4 * 32 + 30 + 1 + H100.jump, abs=2)
    assert turn(loop_of(*in_flight)) == pytest.approx(4 * 32, rel=0.01)


def test_copies_in_flight_hide_their_latency():
    copy = [op("LDGSTS.E.128 [R1], desc[UR4][R2.64]"), op("LDGDEPBAR", write=0)]
    work_ = [op("FADD R3, R4, R5", stall=15) for _ in range(30)]
    waiting = turn(loop_of(*copy, op("DEPBAR.LE SB0, 0x0"), *work_))
    ahead = turn(loop_of(*copy, op("DEPBAR.LE SB0, 0x1"), *work_))
    assert ahead == 3 + 30 * 15 + H100.jump
    assert waiting >= ahead + H100.l2_latency


def test_blocks_meet_at_their_own_barriers():
    body = [op("MUFU.EX2 R1, R2", write=0), op("BAR.SYNC.DEFER_BLOCKING 0x0", wait=1)]
    program = loop_of(*body)
    loop = loops(program)[0]
    run = Run(1, 8, {loop.last: 30}, loop.first, loop.last + 1)
    found = simulate(program, H100, run)
    # The second warp's exponential is over after 16 and 20 more, then both are let go.
    assert found.per_turn[loop.last] == pytest.approx(16 + 20 + 25 + H100.jump, abs=3)
    assert found.stalls["barrier"] > 0


def test_steady_tells_the_range_over_phases():
    body = [op("MUFU.EX2 R1, R2", write=0) for _ in range(6)]
    body += [op("FADD R3, R1, R1", wait=1)] + [op("FADD R3, R4, R5", stall=4) for _ in range(20)]
    found = steady(loop_of(*body), loops(loop_of(*body))[0], H100, blocks=2, warps=4)
    assert found.least <= found.mean <= found.most and found.stalls


# --- what nothing beats --------------------------------------------------------------------------

INSTRUCTIONS = st.sampled_from(
    [
        "FADD R1, R2, R3", "FFMA R1, R2, R4, R6", "IMAD R1, R2, R3, R4", "IMAD.WIDE R2, R4, R5, R6",
        "MUFU.EX2 R1, R2", "FMNMX R1, R2, R3, PT", "LDS.64 R2, [R4]", "STS [R4], R2",
        "SHFL.BFLY PT, R1, R2, 0x1, 0x1f", "HMMA.16816.F32.BF16 R4, R8, R12, R4",
        "HGMMA.64x32x16.F32.BF16 R24, gdesc[UR4], R24, gsb0", "UIADD3 UR4, UR5, UR6, URZ",
        "BAR.SYNC 0x0", "F2FP.BF16.PACK_AB R1, R2, R3",
    ]
)  # fmt: skip
CODE = st.builds(
    op, INSTRUCTIONS, stall=st.integers(0, 6), write=st.sampled_from([7, 0, 1]),
    wait=st.sampled_from([0, 0, 1, 2]),
)  # fmt: skip


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.lists(CODE, min_size=1, max_size=12), st.integers(1, 2), st.sampled_from([4, 8]))
def test_no_simulation_is_below_the_bound(body, blocks, warps):
    program = loop_of(*body)
    loop = loops(program)[0]
    pipe, least = bounds(program, loop, H100, blocks * warps // 4).limit
    turns = 30
    run = Run(blocks, warps, {loop.last: turns}, loop.first, loop.last + 1)
    # The last instruction is issued when each warp may still have a queue of them before a unit.
    queued = H100.mio_queue * 20 * blocks * warps // 4
    assert simulate(program, H100, run).cycles >= turns * least - queued, pipe
    found = steady(program, loop, H100, blocks=blocks, warps=warps, phases=2, turns=9)
    assert found.most >= found.mean >= found.least >= least


def test_work_is_counted_for_a_block():
    product = op("HGMMA.64x64x16.F32.BF16 R24, R8, gdesc[UR4], R24, gsb0")
    program = loop_of(product, op("LDG.E.128 R4, desc[UR4][R2.64]"), op("@!PT LDG.E R4, [R2]"))
    done = work(program, warps=8)
    assert done.flops == 2 * 64 * 64 * 16 * 2 and done.bytes == 16 * 32 * 8


def test_a_timeline_shows_each_pipe_and_its_lines():
    program = loop_of(*[op("MUFU.EX2 R1, R2", write=0)] * 4, op("FADD R3, R1, R1", wait=1))
    for line, i in enumerate(program, start=1):
        i.file, i.line = "/x/gptwin/kernels/layers/gelu.py", line
    found = timeline(program, loops(program)[0], H100, blocks=1, warps=4)
    assert {"xu", "issue", "fp32"} <= set(found.pipes)
    assert sum(line.pipes.get("xu", 0) for line in found.lines) == 4 * 8
    assert found.lines[0].where == "kernels/layers/gelu.py:1" and found.lines[0].text
    assert all(0 <= a < b <= 240 for spans in found.pipes.values() for a, b, _ in spans)
