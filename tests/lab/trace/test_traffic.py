"""Bytes as they are declared and as they are counted: each twin at its three studies."""

import dataclasses

import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels.common import launch
from gptwin.kernels.common.strided import strided
from gptwin.lab.trace.tiles import panels_of
from gptwin.lab.trace.traffic import entries, trace
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.twin import Cost

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="only the interpreter shows what a kernel touches"
)


def differing(twin, case):
    """Return the tensors of which another number of bytes was touched than was declared."""
    return [
        (one.name, entry.kind, entry.name, entry.counted, entry.declared)
        for one in trace(twin, case).passes
        for entry in entries(one)
        if entry.counted != entry.declared
    ]


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_counted_bytes_are_the_declared_ones_at_three_shapes(twin):
    assert len(twin.studies) == 3
    for case in twin.studies:
        assert not differing(twin, case), case


@pytest.mark.parametrize("name", ["softmax", "gelu", "kl", "token_rewards"])
def test_what_fits_on_the_chip_moves_once(name):
    """Where a kernel's file promises one reading and one writing, nothing moves beside that."""
    traced = trace(TWINS[name], TWINS[name].studies[0])
    assert [one.moved for one in traced.passes] == [one.cost.bytes for one in traced.passes]


# --- what the counting must see -------------------------------------------------------------------


@triton.jit
def look_kernel(x_ptr, first, TILE: tl.constexpr):
    """Read a tile and do nothing with it."""
    tl.load(x_ptr + first + tl.arange(0, TILE))


@triton.jit
def write_kernel(x_ptr, first, TILE: tl.constexpr):
    tl.store(x_ptr + first + tl.arange(0, TILE), tl.zeros([TILE], tl.float32))


@triton.jit
def copy_kernel(x, y, TILE: tl.constexpr):
    at = tl.arange(0, TILE)
    tl.store(y.ptr + at * y.strides[0], tl.load(x.ptr + at * x.strides[0]))


def test_a_tensor_with_its_strides_is_a_field_with_its_name():
    """The copy is a workspace, known by the argument of the kernel that wrote it."""
    twin = TWINS["gelu"]

    def kernel(x, **options):
        copy = torch.empty_like(x.detach())
        launch.launch(copy_kernel, (1,), strided(x.detach()), strided(copy), TILE=8)
        return twin.kernel(x, **options)

    traced = trace(dataclasses.replace(twin, kernel=kernel), {"shape": [8]})
    panels = panels_of(traced, traced.passes[0], 0)
    assert [(panel.kind, panel.field.name) for panel in panels] == [("read", "x"), ("write", "[y]")]


def looking_too(twin, name, first):
    """A twin whose kernel reads one more tile of 4 numbers of an argument."""

    def kernel(**arguments):
        launch.launch(look_kernel, (1,), arguments[name].detach(), first, TILE=4)
        return twin.kernel(**arguments)

    return dataclasses.replace(twin, kernel=kernel)


CAUSAL = {"shape": [1, 8, 8], "causal": True}


def test_a_tile_that_no_row_sees_is_found():
    twin = TWINS["softmax"]
    assert not differing(twin, CAUSAL)
    above_the_diagonal = looking_too(twin, "x", 4)
    assert differing(above_the_diagonal, CAUSAL) == [("forward", "read", "x", 4 * 40, 4 * 36)]


def test_keys_out_of_the_window_are_found():
    """Tile by tile, as a kernel would that forgot where a window begins."""
    twin, case = TWINS["attention"], TWINS["attention"].studies[1]
    seen = case["keys"] - (case["keys"] - case["queries"] - case["window"] + 1)
    found = differing(looking_too(twin, "key", 0), case)
    declared = 2 * seen * case["d_head"] * 4
    assert found == [("forward", "read", "key", declared + 16, declared)]


def test_a_second_reading_is_moved_and_not_counted():
    twin, case = TWINS["gelu"], TWINS["gelu"].studies[1]
    once, twice = trace(twin, case), trace(looking_too(twin, "x", 0), case)
    assert not differing(looking_too(twin, "x", 0), case)
    assert twice.passes[0].moved == once.passes[0].moved + 4 * 4


def test_a_result_that_is_not_written_whole_is_found():
    def kernel(average_0, **others):
        result = torch.empty_like(average_0.detach())
        launch.launch(write_kernel, (1,), result, 4, TILE=4)
        return (result,)

    found = differing(dataclasses.replace(TWINS["ema"], kernel=kernel), {"shapes": [[8]]})
    assert ("forward", "write", "average_0", 16, 32) in found


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda c: Cost(c.flops, c.reads | {"x": 1}, c.writes), ("read", "x", 32, 1)),
        (lambda c: Cost(c.flops, c.reads, {}), ("write", "result", 32, 0)),
        (lambda c: Cost(c.flops, c.reads | {"y": 8}, c.writes), ("read", "y", 0, 8)),
    ],
)
def test_a_wrong_declaration_is_found(wrong, expected):
    twin = TWINS["gelu"]

    def cost(case, itemsize):
        forward, backward = twin.cost(case, itemsize)
        return wrong(forward), backward

    found = differing(dataclasses.replace(twin, cost=cost), {"shape": [8]})
    assert found == [("forward", *expected)]


def test_what_forward_keeps_is_an_input_of_backward():
    twin = TWINS["layer_norm"]
    forward, backward = map(entries, trace(twin, {"shape": [3, 4]}).passes)
    assert "saved" not in [entry.name for entry in forward]
    saved = next(entry for entry in backward if entry.name == "saved")
    assert saved.counted == saved.declared == 3 * 12


def test_pytorchs_own_operations_are_counted():
    """A copy of an argument is a reading of it, and what is read in its place is a workspace."""
    twin = TWINS["gelu"]

    def kernel(x, **options):
        return twin.kernel(x.double().float(), **options)

    traced = trace(dataclasses.replace(twin, kernel=kernel), {"shape": [8]})
    forward = traced.passes[0]
    assert not [e for e in entries(forward) if e.counted != e.declared]
    copies = 32 + 64 + 64 + 32
    assert forward.moved_by_pytorch == copies
    assert forward.moved == copies + 2 * 32
