"""Compiled for sm_90, on machines that have none: no GPU has run these kernels yet."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptwin.lab.inspect.targets import architecture

FORWARD, KEYS, QUERIES = (
    "hopper_attention_forward_kernel",
    "hopper_attention_backward_key_value_kernel",
    "hopper_attention_backward_query_kernel",
)

# One process of pytest-xdist: the compilations are shared.
pytestmark = pytest.mark.xdist_group("hopper")


@functools.cache
def compiled():
    command = [sys.executable, str(Path(__file__).with_name("compiled.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *rows, carried = map(json.loads, done.stdout.splitlines())
    return rows, carried


def row_of(kernel):
    (row,) = [row for row in compiled()[0] if row["kernel"] == kernel]
    return row


def test_asked_for_they_take_the_plain_kernels_place():
    launched = [row["kernel"] for row in compiled()[0]]
    assert launched == [FORWARD, "attention_backward_delta_kernel", KEYS, QUERIES]


@pytest.mark.parametrize("kernel", [FORWARD, KEYS, QUERIES])
def test_they_compile_spill_nothing_and_show_no_fault(kernel):
    row = row_of(kernel)
    assert not row["error"]
    assert row["spill_bytes"] == 0 and not row["lints"], row
    assert row["shared_bytes"] <= architecture("sm_90").shared_memory_per_block


@pytest.mark.parametrize("kernel", [FORWARD, KEYS, QUERIES])
def test_tma_copies_and_warpgroups_multiply_with_registers_of_the_producer(kernel):
    assert row_of(kernel)["instructions"] == ["HGMMA", "USETMAXREG", "UTMALDG", "UTMASTG"]


def test_what_was_compiled_ahead_is_found_where_it_was_carried():
    """`gptwin bench ahead`: Triton's key holds nothing of folder, tensors' memory and device."""
    found = compiled()[1]["found"]
    assert found == [[row["kernel"], True] for row in compiled()[0]]


def test_an_instrument_sees_what_descriptors_describe():
    described = {f"{name}.base" for name in ("query", "key", "value", "output")}
    assert set(row_of(FORWARD)["tensors"]) == {*described, "lse_ptr"}
