"""Decoding: what nvdisasm prints, by the fields that ptxas wrote. No compiler is needed."""

import pytest

from gptwin.lab.inspect.sass import decode, loops, parse

from .assembled import listing, loop_of, op

# From a kernel of this project for sm_90, as nvdisasm -hex -g printed it.
REAL = """
	//## File "/x/gptwin/kernels/attention/attention.py", line 104
        /*0000*/                   LDC R1, c[0x0][0x28] ;         /* 0x00000a00ff017b82 */
                                                                  /* 0x000e700000000800 */
	//## File "/x/triton/language/standard.py", line 43
        /*0020*/                   S2R R9, SR_CTAID.X ;           /* 0x0000000000097919 */
                                                                  /* 0x000ee20000002500 */
        /*0040*/                   CS2R R28, SRZ ;                /* 0x00000000001c7805 */
                                                                  /* 0x000fc4000001ff00 */
        /*00d0*/              @!P0 LDC.64 R26, c[0x0][0x210] ;    /* 0x00008400ff1a7b82 */
                                                                  /* 0x000f620000000a00 */
        /*00e0*/                   VIADD R2, R0, 0x3f ;           /* 0x0000003f00027836 */
                                                                  /* 0x004fce0000000000 */
"""


def test_control_words_of_a_real_kernel():
    load, special, clear, wide, add = parse(REAL)
    assert (load.stall, load.write_barrier, load.read_barrier, load.wait_mask) == (8, 1, None, 0)
    assert (special.stall, special.write_barrier, special.yields) == (1, 3, False)
    assert (clear.stall, clear.yields, clear.write_barrier) == (2, True, None)
    assert (wide.predicate, wide.opcode, wide.bytes_of_lane) == ("!P0", "LDC.64", 8)
    # R0 comes from the load behind scoreboard 2, which this one waits for.
    assert add.wait_mask == 0b100 and add.stall == 7 and add.yields
    assert (load.line, add.line) == (104, 43) and add.file.endswith("standard.py")


@pytest.mark.parametrize(
    "fields",
    [
        {"stall": 15, "yields": True, "write": 0, "read": 5, "wait": 0b111111, "reuse": 0b1010},
        {"stall": 1, "write": 5},
        {"stall": 0, "read": 0, "wait": 1},
    ],
)
def test_every_field_comes_back(fields):
    (i,) = parse(listing(op("FADD R1, R2, R3", **fields)))
    assert i.stall == fields["stall"] and i.yields is fields.get("yields", False)
    assert i.write_barrier == fields.get("write") and i.read_barrier == fields.get("read")
    assert i.wait_mask == fields.get("wait", 0) and i.reuse == fields.get("reuse", 0)


def test_products_say_their_tiles():
    wide = decode(0, "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24, gsb0", 0)
    assert wide.tile() == (64, 128, 16) and wide.left_from_shared_memory
    from_registers = decode(0, "HGMMA.64x64x16.F32.BF16 R24, R8, gdesc[UR4], R24", 0)
    assert from_registers.is_warpgroup_product and not from_registers.left_from_shared_memory
    assert decode(0, "HMMA.16816.F32.BF16 R4, R8, R12, R4", 0).tile() == (16, 8, 16)
    assert decode(0, "HMMA.1688.F32.TF32 R4, R8, R12, R4", 0).tile() == (16, 8, 8)
    assert decode(0, "LDG.E.U16 R4, desc[UR4][R2.64]", 0).bytes_of_lane == 2
    assert decode(0, "FFMA R4, R8, R13, R4", 0).source_registers() == [8, 13, 4]


def test_loops_nest_and_waits_are_none():
    program = parse(
        listing(
            ".L_outer", op("FADD R1, R2, R3"),
            ".L_inner", op("FADD R1, R2, R3"), op("@P0 BRA `(.L_inner)"),
            op("@P1 BRA `(.L_outer)"),
            ".L_wait", op("SYNCS.PHASECHK P0, [R1]"), op("@P0 BRA `(.L_wait)"),
            op("EXIT"), ".L_trap", op("BRA `(.L_trap)"),
        )
    )  # fmt: skip
    found = [(loop.first, loop.last, loop.innermost) for loop in loops(program)]
    assert found == [(0, 3, False), (1, 2, True)]


def test_what_is_no_listing_is_refused():
    with pytest.raises(ValueError, match="expected the second half"):
        parse("        /*0000*/      FADD R1, R2, R3 ;    /* 0x0000000000000000 */\n")
    assert loop_of(op("FADD R1, R2, R3"))[1].target == 0
