"""What a kernel may say, and what it computes: a line or two of each."""

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma
from triton.language.core import _aggregate as aggregate

from gptwin.lab.gluon.play import Played, play

from .launches import described

ROW = gl.BlockedLayout([1], [32], [4], [0])
TILE = gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0])
FLAT = gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0])


def played(kernel, *args, grid=(1,), **named) -> Played:
    result = play(kernel, grid, *args, **named)
    assert not result.findings, "\n".join(map(str, result.findings))
    return result


@gluon.jit
def integers_kernel(out_ptr, a, b):
    gl.store(out_ptr, a // b)
    gl.store(out_ptr + 1, a % b)
    gl.store(out_ptr + 2, gl.cdiv(b, 2))
    gl.store(out_ptr + 3, gl.program_id(0) + 10 * gl.num_programs(0))


def test_integers_are_divided_as_on_a_gpu() -> None:
    out = torch.zeros(4, dtype=torch.int32)
    played(integers_kernel, out, -7, 3, grid=(2,))
    assert out.tolist() == [-2, -1, 2, 21]


@gluon.jit
def arithmetic_kernel(x_ptr, out_ptr, N: gl.constexpr, LAYOUT: gl.constexpr):
    at = gl.arange(0, N, LAYOUT)
    x = gl.load(x_ptr + at, mask=at < N - 1, other=2.0)
    y = (x * x + 0.1).to(gl.float32)
    gl.store(out_ptr + at, gl.where(x > 0, gl.exp2(y), -x / 3))


def test_bfloat16_is_rounded_after_every_operation() -> None:
    x = torch.randn(64).bfloat16()
    out = torch.zeros(64)
    played(arithmetic_kernel, x, out, N=64, LAYOUT=ROW)
    x[-1] = 2
    expected = torch.where(x > 0, torch.exp2((x * x + 0.1).float()), -x.float() / 3)
    torch.testing.assert_close(out, expected)


@gluon.jit
def greater(a, b):
    return gl.where(a > b, a, b)


@gluon.jit
def reductions_kernel(x_ptr, out_ptr, LAYOUT: gl.constexpr):
    rows = gl.arange(0, 8, gl.SliceLayout(1, LAYOUT))
    columns = gl.arange(0, 32, gl.SliceLayout(0, LAYOUT))
    x = gl.load(x_ptr + rows[:, None] * 32 + columns[None, :])
    gl.store(out_ptr + rows, gl.sum(x, axis=1))
    gl.store(out_ptr + 8 + rows, gl.max(x, 1) - gl.min(x, 1))
    gl.store(out_ptr + 16 + rows, gl.reduce(x, 1, greater))


def test_axes_are_reduced_by_the_kernels_own_function_too() -> None:
    x, out = torch.randn(8, 32), torch.zeros(3, 8)
    played(reductions_kernel, x, out, LAYOUT=TILE)
    expected = torch.stack([x.sum(1), x.amax(1) - x.amin(1), x.amax(1)])
    torch.testing.assert_close(out, expected)


@gluon.jit
def layouts_kernel(out_ptr, LAYOUT: gl.constexpr, OTHER: gl.constexpr):
    gl.store(out_ptr + gl.arange(0, 32, LAYOUT), gl.arange(0, 32, OTHER) + gl.arange(0, 32, LAYOUT))


def test_operands_of_two_layouts_are_refused() -> None:
    other = gl.BlockedLayout([2], [32], [4], [0])
    out = torch.zeros(32, dtype=torch.int32)
    (finding,) = play(layouts_kernel, 1, out, ROW, other).findings
    assert finding.kind == "failure" and "layouts differ" in finding.detail
    played(layouts_kernel, out, ROW, ROW)
    assert out.tolist() == [*range(0, 64, 2)]


@aggregate
class Counter:
    """A state that methods hand on."""

    value: gl.tensor
    step: gl.constexpr

    @gluon.constexpr_function
    def __init__(self, value, step):
        self.value = value
        self.step = gl.constexpr(step)

    @gluon.jit
    def begin(step: gl.constexpr):
        return Counter(gl.to_tensor(0), step)

    @gluon.jit
    def next(self):
        return Counter(self.value + self.step, self.step)


@gluon.jit
def aggregate_kernel(out_ptr, MADE: gl.constexpr, N: gl.constexpr):
    counter = MADE.begin(3)
    for _ in range(N):
        counter = counter.next()
    gl.store(out_ptr, counter.value)


def test_aggregates_are_handed_over_and_made() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    played(aggregate_kernel, out, Counter, 4)
    assert out.item() == 12


@gluon.jit
def copy_kernel(x_ptr, out_ptr, n, WAIT: gl.constexpr, LAYOUT: gl.constexpr, MEMORY: gl.constexpr):
    at = gl.arange(0, 64, LAYOUT)
    tiles = gl.allocate_shared_memory(gl.float32, [2, 64], MEMORY)
    for i in gl.static_range(2):
        where = i * 64 + at
        async_copy.async_copy_global_to_shared(tiles.index(i), x_ptr + where, where < n)
        async_copy.commit_group()
    async_copy.wait_group(WAIT)
    gl.store(out_ptr + at, tiles.index(0).load(LAYOUT) + tiles.index(1).load(LAYOUT))


def test_groups_of_copies_are_waited_for() -> None:
    x, out = torch.randn(100), torch.zeros(64)
    played(copy_kernel, x, out, 100, 0, ROW, FLAT)
    assert torch.equal(out, x[:64] + torch.cat([x[64:], torch.zeros(28)]))
    findings = play(copy_kernel, 1, x, out, 100, 1, ROW, FLAT).findings
    assert {f.kind for f in findings} == {"read before it is filled", "in flight at the end"}
    assert findings[0].buffer == "tiles[1]"


@gluon.jit
def stage_kernel(stage, used):
    bars = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(bars.index(0), count=1)
    mbarrier.arrive(bars.index(stage), count=1, pred=used)


@pytest.mark.parametrize("stage", [-1, 2])
def test_a_stage_that_is_not_there_may_be_named_and_not_used(stage: int) -> None:
    played(stage_kernel, stage, False)
    (finding,) = play(stage_kernel, 1, stage, True).findings
    assert f"bars has 2 stages, and no stage {stage}" in finding.detail


@gluon.jit
def waits_for_ever(x_ptr):
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=3)
    mbarrier.arrive(ready, count=2)
    mbarrier.wait(ready, 0)


def test_a_deadlock_says_what_is_missing() -> None:
    (finding,) = play(waits_for_ever, 1, torch.zeros(1)).findings
    assert (finding.kind, finding.buffer) == ("deadlock", "ready")
    assert "phase 0 of ready (parity 0), which lacks 1 of 3 arrivals" in finding.detail
    assert finding.where.endswith(f":{waits_for_ever.fn.__code__.co_firstlineno + 5}")


@gluon.jit
def waits_for_nothing(x_ptr):
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.wait(ready, 1)


def test_a_wait_before_init_is_found() -> None:
    (finding,) = play(waits_for_nothing, 1, torch.zeros(1)).findings
    assert (finding.kind, finding.buffer) == ("not initialised", "ready")


SUMS = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])


@gluon.jit
def product_kernel(x_desc, out_ptr, SUMS: gl.constexpr, IS_ASYNC: gl.constexpr):
    x = gl.allocate_shared_memory(x_desc.dtype, x_desc.block_type.shape, x_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, x_desc.block_type.nbytes)
    tma.async_copy_global_to_shared(x_desc, [0, 0], ready, x)
    mbarrier.wait(ready, 0)
    nothing = gl.zeros([64, 64], gl.float32, SUMS)
    sums = warpgroup_mma(x, x.permute((1, 0)), nothing, is_async=IS_ASYNC)
    x.store(nothing.to(x.dtype))
    rows = gl.arange(0, 64, gl.SliceLayout(1, SUMS))[:, None] * 64
    gl.store(out_ptr + rows + gl.arange(0, 64, gl.SliceLayout(0, SUMS))[None, :], sums)


def test_a_product_is_waited_for_unless_it_is_asynchronous() -> None:
    x, out = torch.randn(64, 64).bfloat16(), torch.zeros(64, 64)
    played(product_kernel, described(x, 64), out, SUMS, False)
    torch.testing.assert_close(out, x.float() @ x.float().T)
    findings = play(product_kernel, 1, described(x, 64), out, SUMS, True).findings
    assert [finding.kind for finding in findings] == [
        "overwritten while read",
        "used before its wait",
        "in flight at the end",
    ]
