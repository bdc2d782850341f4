"""Atomic loads and stores (Triton 3.9) are no plain ones, and order what lies around them."""

import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels.common import launch
from gptwin.lab.sanitize.program import watching

pytestmark = [
    pytest.mark.skipif(not launch.INTERPRETED, reason="the sanitizer watches the interpreter"),
    pytest.mark.skipif(not hasattr(tl, "atomic_load"), reason="this Triton has no tl.atomic_load"),
]


@triton.jit
def message_kernel(
    x_ptr, buffer_ptr, flag_ptr, y_ptr,
    SET: tl.constexpr, GET: tl.constexpr, ORDER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, BLOCK)
    if tl.program_id(0) == 0:
        tl.store(buffer_ptr + at, tl.load(x_ptr + at))
        tl.debug_barrier()
        if SET == "atomic":
            tl.atomic_store(flag_ptr, 1, sem="release" if ORDER else "relaxed")
        else:
            tl.store(flag_ptr, 1)
    else:
        if GET == "atomic":
            while tl.atomic_load(flag_ptr, sem="acquire" if ORDER else "relaxed") == 0:
                pass
        elif GET == "poll":
            tl.atomic_poll(flag_ptr, 1, sem="acquire" if ORDER else "relaxed")
        else:
            while tl.load(flag_ptr, volatile=True) == 0:
                pass
        tl.store(y_ptr + at, tl.load(buffer_ptr + at))


def found(setting: str, getting: str, *, order: bool) -> set[tuple[str, str]]:
    """Pass a block from one program to another; return the kinds and tensors of findings."""
    x, buffer, y = torch.randn(16), torch.empty(16), torch.empty(16)
    flag = torch.zeros((), dtype=torch.int32)
    with watching() as seen:
        message_kernel[(2,)](x, buffer, flag, y, SET=setting, GET=getting, ORDER=order, BLOCK=16)
    assert y.equal(x)
    return {(violation.kind, violation.tensor) for violation in seen.violations}


@pytest.mark.parametrize("getting", ["atomic", "poll"])
def test_a_release_and_an_acquire_pass_a_message(getting: str) -> None:
    assert found("atomic", getting, order=True) == set()
    assert found("atomic", getting, order=False) == {("read race", "buffer_ptr")}


@pytest.mark.parametrize(
    ("setting", "getting", "kind"),
    [("plain", "atomic", "read race"), ("atomic", "plain", "read race")],
)
def test_a_plain_access_races_with_an_atomic_one(setting: str, getting: str, kind: str) -> None:
    assert (kind, "flag_ptr") in found(setting, getting, order=True)


@triton.jit
def counter_kernel(count_ptr, seen_ptr, STORE: tl.constexpr):
    tl.atomic_add(count_ptr, 1)
    tl.store(seen_ptr + tl.program_id(0), tl.atomic_load(count_ptr) * 0)
    if STORE:
        tl.atomic_store(count_ptr, 7)


@pytest.mark.parametrize("store", [False, True])
def test_atomics_of_any_kind_do_not_race_with_each_other(store: bool) -> None:
    count, seen_by = torch.zeros(1, dtype=torch.int32), torch.empty(3, dtype=torch.int32)
    with watching() as seen:
        counter_kernel[(3,)](count, seen_by, STORE=store)
    assert [str(violation) for violation in seen.violations] == []


@triton.jit
def late_kernel(flag_ptr, y_ptr):
    if tl.program_id(0) == 0:
        tl.store(y_ptr, tl.atomic_load(flag_ptr))
    else:
        tl.store(flag_ptr, 0)


def test_a_plain_store_races_with_an_atomic_load_before_it() -> None:
    flag, y = torch.zeros(1, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    with watching() as seen:
        late_kernel[(2,)](flag, y)
    assert {(v.kind, v.tensor) for v in seen.violations} == {("read race", "flag_ptr")}
