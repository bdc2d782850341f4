"""Lints of machine code written by hand: each with instruction and remedy, and mended."""

import pytest

from gptwin.lab.inspect import lints
from gptwin.lab.inspect.inspect import Row, _judged
from gptwin.lab.inspect.targets import architecture
from gptwin.lab.twins.catalogue import TWINS

from ..predict.assembled import loop_of, op

NARROW = "HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24, gsb0"
WIDE = "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24, gsb0"
WAIT_FOR_ALL, WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0", "WARPGROUP.DEPBAR.LE gsb0, 0x1"
COPY = "LDGSTS.E.128 [R1], desc[UR4][R2.64]"


def kinds(*code):
    return {lint.kind for lint in lints.of_code(loop_of(*map(op, code)))}


@pytest.mark.parametrize(
    ("kind", "faulty", "mended"),
    [
        (lints.NARROW, [NARROW], [WIDE]),
        (lints.NARROW, [NARROW], [NARROW.replace("gdesc[UR4]", "R8, gdesc[UR4]")]),
        (lints.DRAINED, [COPY, "DEPBAR.LE SB0, 0x0"], [COPY, "DEPBAR.LE SB0, 0x2"]),
        (lints.DRAINED, [COPY, "DEPBAR.LE SB0, 0x0"], ["DEPBAR.LE SB0, 0x0"]),
        (
            lints.BYTES,
            [WIDE, "LDG.E.U16 R4, desc[UR4][R2.64]", "STS.U16 [R1], R4"],
            [WIDE, "LDG.E.128 R4, desc[UR4][R2.64]", "STS.128 [R1], R4"],
        ),
        (
            lints.BYTES,
            [WIDE, "LDG.E.U16 R4, desc[UR4][R2.64]", "STS.U16 [R1], R4"],
            ["LDG.E.U16 R4, desc[UR4][R2.64]", "STS.U16 [R1], R4"],  # feeds no product
        ),
        (
            lints.SERIAL,
            [WIDE, WAIT_FOR_ALL, "MUFU.EX2 R1, R2", WIDE],
            [WIDE, WAIT, "MUFU.EX2 R1, R2", WIDE],
        ),
    ],
)
def test_a_fault_is_found_and_its_remedy_ends_it(kind, faulty, mended):
    assert kind in kinds(*faulty) and kind not in kinds(*mended)


def test_a_lint_names_instruction_place_and_remedy():
    program = loop_of(op(NARROW))
    program[0].file, program[0].line = "/x/attention.py", 7
    (lint,) = lints.of_code(program)
    assert str(lint).startswith(f"narrow product: {NARROW} at 0x0 (attention.py:7): 16 columns")
    assert "wider tile" in lint.remedy


def test_a_limit_of_registers_is_told_where_it_would_help():
    def limit(arch="sm_90", warps=8, registers=157, shared=65536):
        found = lints.register_limit(
            architecture(arch), warps=warps, registers=registers, shared_bytes=shared
        )
        return found

    assert limit() == 128 and limit(warps=4, registers=255) is None  # two fit already
    assert limit(registers=128) is None
    assert limit(shared=200_000) is None  # shared memory has room for one
    assert limit(arch="gfx942") is None
    assert limit(warps=16, registers=100) == 64


def test_what_is_accepted_has_a_reason_and_fails_no_row():
    kernels = {name for twin in TWINS.values() for name in twin.kernels()}
    for entry in lints.accepted():
        assert entry["kernel"] in kernels and entry["kind"] in lints.KINDS and entry["reason"]
    lint = lints.Lint(lints.SERIAL, "x", "y")
    row = Row("sm_90", "attention", "bfloat16", "attention_forward_kernel", lints=(lint,))
    assert not _judged(row).failures
    other = Row("sm_90", "softmax", "bfloat16", "softmax_forward_kernel", lints=(lint,))
    assert _judged(other).failures == ("serial products: x: y",)


def test_where_no_model_weighs_a_remedy_it_is_advice():
    alone, same = (lints.Lint(kind, "", "") for kind in (lints.ALONE, lints.SAME))
    assert "advice" in lints.reason_to_accept("no_such_kernel", "sm_100", alone)
    assert not lints.reason_to_accept("no_such_kernel", "sm_90", alone)
    assert not lints.reason_to_accept("no_such_kernel", "sm_100", same)
