"""Kernels that are right: nothing is found, in no order, and their numbers are the reference's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from gptwin.lab.gluon.own import Results as OwnResults
from gptwin.lab.gluon.own import backward, forward
from gptwin.lab.gluon.play import play, playing

from .launches import Results, attend, double, greatest_error

each_schedule = pytest.mark.parametrize("schedule", ["behind", "ahead", "0"])
# Half the spacing of bfloat16 from 1 to 2, and as much for the weights' rounding.
TOLERANCE = 2.0**-7


@each_schedule
@pytest.mark.parametrize(("launch", "tolerance"), [(double, 0.0), (attend, TOLERANCE)])
def test_nothing_is_found_and_the_numbers_agree(
    launch: Callable[[], Results], tolerance: float, schedule: str
) -> None:
    with playing(schedule, strict=True) as played:
        found, expected = launch()
    assert not played.findings, "\n".join(map(str, played.findings))
    assert greatest_error(found, expected()) <= tolerance


@each_schedule
@pytest.mark.parametrize(
    ("n_query", "n_key", "causal"),
    [(128, 600, False), (128, 428, True), (200, 300, True), (64, 1, False)],
)
@pytest.mark.parametrize("launch", [forward, backward])
def test_the_projects_attention_is_right(
    launch: Callable[..., OwnResults], n_query: int, n_key: int, causal: bool, schedule: str
) -> None:
    """With two heads that share their keys."""
    with playing(schedule, strict=True) as played:
        found, expected = launch(n_query, n_key, causal, n_head=2)
    assert not played.findings, "\n".join(map(str, played.findings))
    right = expected()
    assert greatest_error([*found.values()], [right[name] for name in found]) <= TOLERANCE


def test_any_order_gives_the_same_bits() -> None:
    results = []
    for schedule in ("behind", "ahead", "7"):
        with playing(schedule):
            results.append(attend()[0])
    assert all(map(torch.equal, results[0], results[1]))
    assert all(map(torch.equal, results[0], results[2]))


@gluon.jit
def asks_for_assembly(x_ptr):
    gl.store(x_ptr, 1.0)
    gl.inline_asm_elementwise("", "", [], gl.float32, True, 1)


@gluon.jit
def asks_for_tensor_memory(x_ptr):
    gl.store(x_ptr, 1.0)
    gl.nvidia.blackwell.allocate_tensor_memory(gl.float32, [128, 128], None)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        (asks_for_assembly, "inline_asm_elementwise"),
        (asks_for_tensor_memory, "blackwell.allocate_tensor_memory"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name_and_line(kernel: Any, name: str) -> None:
    (finding,) = play(kernel, (1,), torch.zeros(1)).findings
    assert finding.where == f"{__file__}:{kernel.fn.__code__.co_firstlineno + 3}"
    assert f"{name} is not modelled" in finding.detail


@gluon.jit
def writes_beyond(x_ptr, N: gl.constexpr):
    gl.store(x_ptr + gl.arange(0, N, gl.BlockedLayout([1], [32], [4], [0])), 1.0)


def test_an_access_beyond_a_tensor_is_found() -> None:
    x = torch.zeros(100)
    (finding,) = play(writes_beyond, (1,), x, N=128).findings
    assert finding.kind == "out of bounds" and finding.detail.startswith("element 100 of 100")
    assert x.sum() == 100


def test_launches_outside_are_compiled_as_before() -> None:
    before = gluon._runtime.GluonJITFunction.run
    with playing():
        assert gluon._runtime.GluonJITFunction.run is not before
    assert gluon._runtime.GluonJITFunction.run is before
