"""The compiler, broken on purpose: each fault is noticed by a test.

    python tests/kernels/native/broken_compiler.py [NAME ...]

runs the test that each mutant names, in a fork of its own where the mutant's file is replaced as it
is imported, and prints whether it failed, as JSON. Nothing on disk changes.
"""

import functools
import json
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS.parent / "tools"))

from broken import Break, in_fork  # noqa: E402

PACKAGE = "kernels/native"
COMPILED, OPERATIONS = "native/compiled/test_compiled.py", "native/compiled/test_operations.py"
LOOPS = "native/compiled/test_loops.py"
BLOCKS, CASTS = "interpreter/test_blocks.py", "interpreter/test_casts.py"
ARITHMETIC = "interpreter/test_arithmetic.py"
TEST_FAILED = 1  # pytest's exit code

# name: (file below kernels/native, what stands there once, what takes its place, the test)
MUTANTS = {
    "ties of bfloat16 are rounded up": (
        "instructions/casts.py",
        'odd = self.set(f"and {words} {upper}, {k(1)}")',
        'odd = self.set(f"or {words} {upper}, {k(1)}")\n'
        '        odd = self.set(f"and {words} {odd}, {k(1)}")',
        f"{ARITHMETIC}::test_bfloat16_arithmetic_equals_pytorch[add]",
    ),
    "float8 is rounded at the wrong bit": (
        "instructions/casts.py",
        "k((1 << cut - 1) - 1)",
        "k((1 << cut) - 1)",
        f"{CASTS}::test_to_float8_rounds_as_pytorch_does",
    ),
    "towards zero is to nearest": (
        "instructions/casts.py", "fcmp ogt {floats} {size(rounded",
        "fcmp olt {floats} {size(rounded",
        f"{CASTS}::test_rounding_to_zero_never_enlarges",
    ),
    "tf32 keeps a bit too many": (
        "loops/products.py", "-(1 << 13)", "-(1 << 12)",
        f"{ARITHMETIC}::test_tf32_drops_thirteen_bits_of_each_operand",
    ),
    "an integer of 8 bits is clamped": (
        "instructions/casts.py", '"i16" if target == "i8" else target', "target",
        f"{CASTS}::test_a_float_that_is_no_integer_is_clamped",
    ),
    "one active lane is enough for a whole vector": (
        "instructions/arithmetic.py",
        'last = self.integer("add", element, base, str((width - 1) * stride))',
        "last = base",
        f"{COMPILED}::test_branches_and_while_loops",
    ),
    "a mask is forgotten where lanes are looked at": (
        "instructions/memory.py", 'kept = self.set(f"and {masks} {mask}, {within}")',
        "kept = within",
        f"{COMPILED}::test_masked_lanes_take_other",
    ),
    "the end of a tensor is not checked": (
        "instructions/memory.py", 'return self.set(f"and i1 {above}, {below}")', "return above",
        f"{COMPILED}::test_an_access_beyond_a_tensor_is_reported_and_not_made",
    ),
    "what is read and then written lies elsewhere": (
        "loops/nests.py", "return not same or self.reads_elsewhere(",
        "return False and self.reads_elsewhere(",
        f"{COMPILED}::test_a_store_does_not_overtake_the_load_before_it",
    ),
    "what is written where it was read needs no other element": (
        "loops/nests.py", "return not same or self.reads_elsewhere(",
        "return not same or False and self.reads_elsewhere(",
        f"{COMPILED}::test_a_tile_is_turned_where_it_lies",
    ),
    "a load does not wait for a store": (
        "loops/nests.py", "return not any(isinstance(r, Store) for r in self.pending)",
        "return True",
        f"{COMPILED}::test_a_load_sees_the_store_before_it",
    ),
    "halves of a reduction are combined in the other order": (
        "loops/reductions.py", "for start in (0, width)", "for start in (width, 0)",
        f"{BLOCKS}::test_selections_are_exact",
    ),
    "a scan combines in the other order": (
        "loops/reductions.py",
        "combined = self.combine(op.regions[0], old + new, None)",
        "combined = self.combine(op.regions[0], new + old, None)",
        f"{BLOCKS}::test_scan_of_pairs_keeps_the_order",
    ),
    "a maximum of nothing is 0": (
        "loops/reductions.py", '"arith.maxnumf": float("nan")', '"arith.maxnumf": 0.0',
        f"{OPERATIONS}::test_a_lane_that_is_masked_off_spoils_what_it_reaches",
    ),
    "what a loop carries keeps its place": (
        "loops/control.py", "(then[argument], \"ptr\", second, now[argument])",
        "(then[argument], \"ptr\", second, then[argument])",
        f"{COMPILED}::test_a_turn_of_a_loop_does_not_overwrite_what_it_reads",
    ),
    "what a while loop carries keeps its place": (
        "loops/control.py", '(b, "ptr", second, a)', '(b, "ptr", second, b)',
        f"{OPERATIONS}::test_a_turn_of_a_while_loop_does_not_overwrite_what_it_reads",
    ),
    "both sides of a branch are one": (
        "loops/control.py", "if i < len(op.regions):\n                region = op.regions[i]",
        "if i < len(op.regions):\n                region = op.regions[0]",
        f"{COMPILED}::test_branches_and_while_loops",
    ),
    "a product forgets what it is added to": (
        "loops/products.py", '("i1", str(not is_zero).lower())', '("i1", "false")',
        f"{COMPILED}::test_products",
    ),
    "a transpose swaps the wrong halves": (
        "loops/products.py", "return shuffled(0), shuffled(distance)",
        "return shuffled(distance), shuffled(0)",
        f"{OPERATIONS}::test_a_weight_may_lie_by_rows_or_by_columns",
    ),
    "every pair of matrices is the first": (
        "loops/products.py", "offset = self.integer(\"mul\", \"i64\", pair,",
        "offset = self.integer(\"mul\", \"i64\", \"0\",",
        f"{OPERATIONS}::test_pairs_of_matrices_are_multiplied_whichever_way_they_lie",
    ),
    "an axis that was added is read for its neighbour": (
        "loops/evaluation.py", "return at[:axis] + at[axis + 1 :]", "return at[:-1]",
        f"{COMPILED}::test_masked_lanes_take_other",
    ),
    "a maximum forgets what is undefined": (
        "instructions/arithmetic.py",
        'if not self.checked or intrinsic in ("maximum", "minimum"):', "if True:",
        f"{OPERATIONS}::test_a_lane_that_is_masked_off_spoils_what_it_reaches",
    ),
    "a maximum keeps every NaN": (
        "instructions/arithmetic.py", '"arith.maxnumf": "maxnum"', '"arith.maxnumf": "maximum"',
        f"{ARITHMETIC}::test_float32_extremes_ignore_nan",
    ),
    "the last lane may overflow": (
        "instructions/arithmetic.py", "(width - 1) * f.stride", "0 * f.stride",
        f"{OPERATIONS}::test_addresses_that_overflow_are_reported",
    ),
    "small powers are flushed to zero": (
        "instructions/functions.py", 'half = m.word("ashr", n, m.n(1))',
        'half = m.word("add", n, m.n(0))',
        f"{COMPILED}::test_functions_are_within_two_units_of_the_last_place[exp2]",
    ),
    "a part without masks ends in the middle of a vector": (
        "loops/parts.py", 'whole = self.set(f"and i64 {whole}, {-width}")',
        'whole = self.set(f"add i64 {whole}, 0")',
        f"{LOOPS}::test_a_mask_may_end_anywhere",
    ),
    "what is left of a vector is forgotten": (
        "loops/parts.py", "none, str(width - 1)", "none, str(0)",
        f"{LOOPS}::test_a_mask_may_end_anywhere",
    ),
    "numbers never begin anew": (
        "loops/parts.py", "icmp slt i64 {room}, {n - 1}", "icmp slt i64 {room}, 0",
        f"{LOOPS}::test_a_mask_of_numbers_that_begin_anew_holds_again",
    ),
    "a part of a row is always within bounds": (
        "loops/parts.py", "[self.stretch_inside(row, whole) for row", '["true" for row',
        f"{LOOPS}::test_a_long_row_that_leaves_its_tensor_is_reported",
    ),
    "a reduction that is put off is done for the other rows": (
        "loops/choices.py", "((1, True), (2, False))", "((1, False), (2, True))",
        f"{LOOPS}::test_a_reduction_that_is_put_off_is_done_for_the_rows_that_want_it",
    ),
    "whatever a loop carries is changed in place": (
        "loops/control.py", "now if grows_in_place(carried, body) else", "now if True else",
        f"{COMPILED}::test_a_turn_of_a_loop_does_not_overwrite_what_it_reads",
    ),
    "a row is stored before the next one is loaded": (
        "loops/rows.py", "not _in_any_order(block, rows, may_be_one)", "False",
        f"{LOOPS}::test_rows_that_need_one_another_are_not_run_one_by_one",
    ),
    "each row changes what a loop carries": (
        "loops/rows.py", "not _carries_rows(block, rows)", "False",
        f"{LOOPS}::test_rows_that_need_one_another_are_not_run_one_by_one",
    ),
    "a row is read again behind a store to the same place": (
        "loops/nests.py", "steps_to(target) == steps_to(pointer)", "False",
        "native/compiled/test_aliases.py::test_a_row_is_not_read_again_where_it_was_written",
    ),
    "a fault of a later part of the programs is told first": (
        "threads.py", "for pair in pairs if pair[0]", "for pair in [*pairs][::-1] if pair[0]",
        "native/test_threads.py::test_the_first_program_with_a_fault_is_told_when_all_have_run",
    ),
    "arguments never share memory": (
        "driver.py", "and given.any_overlap(self.apart)", "and False",
        "native/compiled/test_aliases.py::test_memory_that_overlaps_in_part",
    ),
    "every place is the same": (
        "loops/evaluation.py", 'op.operands[1] if op.name == "tt.addptr" else pointer.type',
        "pointer.type",
        "native/compiled/test_aliases.py::test_in_place_through_two_arguments",
    ),
    "programs are numbered with y fastest": (
        "kernel.py", "%pxw = urem i64 %program, %gxw", "%pxw = udiv i64 %program, %gyw",
        f"{OPERATIONS}::test_every_program_has_its_place_in_the_grid",
    ),
}  # fmt: skip


def run(test: str, folder: str) -> str:
    """Run a test; return pytest's exit code, and leave in a folder what it printed."""
    import pytest

    os.environ["TRITON_CACHE_DIR"] = folder  # the cache knows files, not what was made of them
    with open(os.path.join(folder, "said"), "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly")
    return str(int(pytest.main([*options, str(TESTS / test)])))


def break_of(name: str) -> Break:
    """Return a mutant's change."""
    file, old, new, _ = MUTANTS[name]
    return Break(f"{PACKAGE}/{file}", old, new)


def judge(name: str) -> str:
    """Say what became of a mutant: "noticed", or what else."""
    with tempfile.TemporaryDirectory() as folder:
        ended = in_fork(break_of(name), functools.partial(run, MUTANTS[name][-1], folder))
        if ended.signal or ended.said == str(TEST_FAILED):
            return "noticed"
        return ended.error or f"exit code {ended.said}: " + _printed(folder)


def _printed(folder: str) -> str:
    return (Path(folder) / "said").read_text()[-1000:]


if __name__ == "__main__":
    os.environ["GPTWIN_TESTS_ON"] = "native"
    # What takes long to import, and is the same in every fork.
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401
    import triton  # noqa: F401

    assert "gptwin.kernels.native" not in sys.modules
    print(json.dumps({name: judge(name) for name in sys.argv[1:] or MUTANTS}))
