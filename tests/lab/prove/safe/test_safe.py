"""Small broken kernels are refuted, and a run shows each fault; mended, they are proved."""

import functools
from pathlib import Path

import pytest

pytest.importorskip("z3")

from gptwin.lab.prove.safe import workers
from gptwin.lab.prove.safe.prove import Outcome, Result, confirm
from gptwin.lab.prove.safe.asked.questions import PROVED, REFUTED

HERE = Path(__file__).parent
# The fault of each broken kernel, by the kind of question.
FAULTS = {
    "no_mask_broken": "bounds",
    "off_by_one_broken": "bounds",
    "wrong_column_broken": "bounds",
    "gather_broken": "bounds",
    "nested_broken": "bounds",
    "while_broken": "bounds",
    "row_offset_broken": "width",
    "extended_too_late_broken": "width",
    "loop_counter": "width",
    "tiles": "width",
    "overlapping_broken": "race",
    "shift_broken": "race",
    "unwritten_broken": "written",
}
MENDED = [
    "no_mask_fixed", "wrong_column_fixed", "gather_fixed", "nested_fixed", "while_fixed",
    "row_offset_fixed", "shift_fixed", "reversed_tiles_fixed",
]  # fmt: skip


@functools.cache
def outcome() -> Outcome:
    """Prove all small kernels, and run the counterexamples, in processes of their own."""
    with workers.compiling() as provers, workers.interpreting() as runners:
        found = provers.submit(workers.prove, str(HERE / "small_kernels.py")).result()
        confirm(found, runners)
    return found


def results_of(kernel: str) -> list[Result]:
    found = [result for result in outcome().results if result.kernel == kernel]
    assert found, f"{kernel} was not seen"
    return found


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_fault_is_refuted_and_a_run_shows_it(kernel: str) -> None:
    findings = [f for result in results_of(kernel) for f in result.findings]
    refuted = [f for f in findings if f.verdict == REFUTED]
    assert FAULTS[kernel] in {f.kind for f in refuted}
    assert all(f.confirmed for f in refuted), "every report has been seen to happen"


@pytest.mark.parametrize("kernel", MENDED)
def test_a_mended_kernel_is_proved(kernel: str) -> None:
    findings = [f for result in results_of(kernel) for f in result.findings]
    assert findings
    left = [f"{f.kind} {f.where}: {f.verdict}: {f.reason}" for f in findings if f.verdict != PROVED]
    assert not left
