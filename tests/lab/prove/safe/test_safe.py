"""Small broken kernels are refuted, and a run shows each fault; mended, they are proved."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("z3")

from broken_prover import BREAKS, NOTICED, break_of, load
from faults import FAULTS, TRAPS
from proving import proved

from gptwin.kernels.attention.attention_tiles import Masks, mask_arguments
from gptwin.lab.prove.safe import workers
from gptwin.lab.prove.safe.asked.questions import NOT_FOLLOWED, PROVED, REFUTED, UNREACHED
from gptwin.lab.prove.safe.launches.contract import Reading, read
from gptwin.lab.prove.safe.prove import Outcome, Result, confirm
from gptwin.lab.twins.catalogue import TWINS

HERE = Path(__file__).parent
MENDED = [
    "no_mask_fixed",
    "wrong_column_fixed",
    "gather_fixed",
    "nested_fixed",
    "while_fixed",
    "row_offset_fixed",
    "extended_in_time_fixed",
    "loop_counter_fixed",
    "tiles_fixed",
    "two_parts_fixed",
    "shift_fixed",
    "reversed_tiles_fixed",
]
HARMLESS = [
    "rows_and_tiles_fixed", "rows_of_a_group_fixed", "smaller_of_two_fixed", "chosen_fixed",
    "added_up_fixed", "in_steps_fixed", "claimed_fixed",
]  # fmt: skip


@functools.cache
def outcome() -> Outcome:
    """Prove all small kernels, and run the counterexamples in a process of their own."""
    found = proved("small_kernels.py")
    with workers.interpreting() as runners:
        for result in found.results:
            confirm(result, runners)
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


def test_what_a_hasty_prover_would_believe_is_not_proved() -> None:
    believed = {
        name: kinds
        for name, kind in TRAPS.items()
        if kind not in (kinds := _open(proved("traps.py"), name)) or not kinds
    }
    assert not believed


@pytest.mark.parametrize("kernel", HARMLESS)
def test_the_harmless_sibling_of_a_trap_is_proved(kernel: str) -> None:
    assert not _open(proved("traps.py"), kernel)


def _open(outcome: Outcome, kernel: str) -> set[str]:
    """Name the kinds of questions about a kernel that are not answered with a proof."""
    found = [result for result in outcome.results if result.kernel == kernel]
    assert found and not any(result.problem for result in found)
    return {f.kind for result in found for f in result.findings if f.verdict != PROVED}


# Two in CI, all of them by hand: python tests/lab/prove/safe/broken_prover.py --store
IN_CI = ["a while loop's condition does not hold within", "a store's mask need not hold"]
if os.environ.get("GPTWIN_MUTANTS") == "all":
    IN_CI = list(BREAKS)


def test_a_prover_that_is_broken_is_noticed() -> None:
    command = [sys.executable, str(HERE / "broken_prover.py"), *IN_CI]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == dict.fromkeys(IN_CI, NOTICED)


def test_each_break_was_noticed_when_all_were_judged() -> None:
    stored = {name: (row["kernel"], row["verdict"]) for name, row in load().items()}
    assert stored == {name: (kernel, NOTICED) for name, (*_, kernel) in BREAKS.items()}
    page = (HERE.parents[3] / "docs/prove.md").read_text(encoding="utf-8")
    assert f"of {len(BREAKS)} breaks of the\nprover each is noticed" in page


def test_each_break_changes_the_prover_as_it_stands() -> None:
    assert not [name for name in BREAKS if break_of(name).is_stale], "write them anew"


def test_a_contract_that_no_launch_satisfies_proves_nothing() -> None:
    (result,) = results_of("contradicted")
    assert not result.findings
    assert "n > 5; n < 3" in result.problem


def test_an_access_that_no_launch_makes_is_not_called_proved() -> None:
    verdicts = [f.verdict for r in results_of("never_reached") for f in r.findings]
    assert verdicts.count(UNREACHED) == len(results_of("never_reached"))


def test_an_address_from_memory_is_named_as_not_followed() -> None:
    findings = [f for r in results_of("from_a_table") for f in r.findings]
    (lost,) = [f for f in findings if f.verdict != PROVED]
    assert lost.verdict == NOT_FOLLOWED
    assert "read from memory" in lost.reason


def test_a_contract_is_proposed_where_nobody_wrote_one() -> None:
    results_of("without_a_contract")
    lines = outcome().proposed["without_a_contract"].splitlines()
    assert lines == ["x_ptr[n]", "y_ptr[n]", "grid[cdiv(n, BLOCK)]"]


def test_a_stride_that_several_tensors_share_is_that_of_each() -> None:
    findings = [f for r in results_of("one_stride_for_both") for f in r.findings]
    lines = outcome().proposed["one_stride_for_both"].splitlines()
    assert lines[:2] == ["x_ptr[size_0:stride, n_columns:1]", "y_ptr[size_0:stride, n_columns:1]"]
    assert {f.verdict for f in findings} == {PROVED}


@pytest.mark.parametrize(("n", "refused"), [(2**30 - 1, False), (2**30, True)])
def test_of_attention_no_more_is_promised_than_is_refused_otherwise(n: int, refused: bool) -> None:
    query = torch.empty(1, 1, n, 1, device="meta")
    masks = Masks.of(n, causal=True, window=2**40)
    try:
        (masks, *_), found = mask_arguments(query, query, masks, 0.0, 0), False
    except ValueError:
        masks, found = masks.argument(2**30), True
    assert found == refused
    known = {"n_query": n, "n_key": n, "masks.window": masks.window}
    for kernel, text in TWINS["attention"].contracts.items():
        contract = read(text, kernel)
        lengths = [f for f in contract.facts if set(re.findall(r"[a-z_.]+", f.text)) <= set(known)]
        assert "n_query < 2 ** 30" in {f.text for f in lengths}
        for fact in lengths:
            assert Reading(contract, known, {}).fact(fact) != (
                refused and "2 ** 30" in fact.text and "n_" in fact.text
            )
        # No check reads the values of key_start, so nothing can be promised of them.
        assert not any("key_start" in f.text for f in contract.held)


@pytest.mark.parametrize("text", ["x[n", "x + y", "for i in x: pass", "x[n]; n < misspelt"])
def test_a_contract_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="contract"):
        contract = read(text)
        Reading(contract, {"n": 3}, {}).fact(contract.facts[0])
