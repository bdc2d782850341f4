"""Small Gluon kernels with every kind of barrier operation, written for these tests."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

ROWS = gl.constexpr(16)


@gluon.jit
def fill(x_desc, full, empty, tiles, n_tiles):
    stages: gl.constexpr = tiles.type.shape[0]
    for j in range(n_tiles):
        at = j % stages
        phase = (j // stages) & 1
        mbarrier.wait(empty.index(at), phase ^ 1)
        mbarrier.expect(full.index(at), x_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(x_desc, [j * ROWS, 0], full.index(at), tiles.index(at))


@gluon.jit
def double(y_desc, full, empty, tiles, out, n_tiles, layout: gl.constexpr):
    stages: gl.constexpr = tiles.type.shape[0]
    for j in range(n_tiles):
        at = j % stages
        mbarrier.wait(full.index(at), (j // stages) & 1)
        x = tiles.index(at).load(layout)
        fence_async_shared()
        mbarrier.arrive(empty.index(at), count=1)
        tma.store_wait(0)
        out.store(2 * x)
        fence_async_shared()
        tma.async_copy_shared_to_global(y_desc, [j * ROWS, 0], out)
    tma.store_wait(0)


@gluon.jit
def doubled_kernel(x_desc, y_desc, n_tiles, STAGES: gl.constexpr):
    """One partition loads tiles of x, the other stores twice their values to y."""
    layout: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0])
    shape: gl.constexpr = x_desc.block_type.shape
    tiles = gl.allocate_shared_memory(x_desc.dtype, [STAGES] + shape, x_desc.layout)  # noqa: RUF005
    out = gl.allocate_shared_memory(y_desc.dtype, shape, y_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (double, (y_desc, full, empty, tiles, out, n_tiles, layout)),
            (fill, (x_desc, full, empty, tiles, n_tiles)),
        ],
        [1],
        [24],
    )
    for i in gl.static_range(STAGES):
        mbarrier.invalidate(full.index(i))


@gluon.jit
def load_keys_and_values(descs, bars, bufs, row, n_tiles, BLOCK_N: gl.constexpr):
    q_desc, k_desc, v_desc, _ = descs
    k_full, k_empty, v_full, v_empty, q_full = bars
    q_buf, k_bufs, v_bufs = bufs
    stages: gl.constexpr = k_bufs.type.shape[0]
    q_row, kv_row = row
    for which in gl.static_range(2):
        mbarrier.expect(q_full.index(which), q_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(
            q_desc, [q_row + 64 * which, 0], q_full.index(which), q_buf.index(which)
        )
    for j in range(n_tiles):
        at = j % stages
        phase = (j // stages) & 1
        mbarrier.wait(k_empty.index(at), phase ^ 1)
        mbarrier.expect(k_full.index(at), k_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(
            k_desc, [kv_row + j * BLOCK_N, 0], k_full.index(at), k_bufs.index(at)
        )
        mbarrier.wait(v_empty.index(at), phase ^ 1)
        mbarrier.expect(v_full.index(at), v_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(
            v_desc, [kv_row + j * BLOCK_N, 0], v_full.index(at), v_bufs.index(at)
        )


@gluon.jit
def attend(
    which: gl.constexpr, descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N: gl.constexpr
):
    q_desc, _, _, o_desc = descs
    k_full, k_empty, v_full, v_empty, q_full = bars
    q_buf, k_bufs, v_bufs = bufs
    q_row, _ = row
    stages: gl.constexpr = k_bufs.type.shape[0]
    d: gl.constexpr = q_desc.block_type.shape[1]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, d, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    rows: gl.constexpr = gl.SliceLayout(1, s_layout)
    o_rows: gl.constexpr = gl.SliceLayout(1, o_layout)

    zeros = gl.zeros([64, BLOCK_N], gl.float32, s_layout)
    o = gl.zeros([64, d], gl.float32, o_layout)
    m = gl.full([64], -float("inf"), gl.float32, rows)
    mbarrier.wait(q_full.index(which), 0)
    q = q_buf.index(which)
    mbarrier.wait(k_full.index(0), 0)
    s = warpgroup_mma(q, k_bufs.index(0).permute((1, 0)), zeros, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=(s,))
    mbarrier.arrive(k_empty.index(0), count=1)
    m_new = gl.maximum(m, gl.max(s, 1) * scale)
    p = gl.exp2(s * scale - m_new[:, None])
    total = gl.sum(p, 1)
    m = m_new
    weights = gl.convert_layout(p.to(q_desc.dtype), p_layout)
    for j in range(1, n_tiles):
        at = j % stages
        before = (j - 1) % stages
        mbarrier.wait(k_full.index(at), (j // stages) & 1)
        s_next = warpgroup_mma(
            q, k_bufs.index(at).permute((1, 0)), zeros, use_acc=False, is_async=True
        )
        mbarrier.wait(v_full.index(before), ((j - 1) // stages) & 1)
        o_next = warpgroup_mma(weights, v_bufs.index(before), o, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s_next,))  # the products with the values go on
        mbarrier.arrive(k_empty.index(at), count=1)
        m_new = gl.maximum(m, gl.max(s, 1) * scale)
        p = gl.exp2(s * scale - m_new[:, None])
        alpha = gl.exp2(m - m_new)
        total = total * alpha + gl.sum(p, 1)
        m = m_new
        weights_next = gl.convert_layout(p.to(q_desc.dtype), p_layout)
        o, weights = warpgroup_mma_wait(0, deps=(o_next, weights_next))
        mbarrier.arrive(v_empty.index(before), count=1)
        o = o * gl.convert_layout(alpha, o_rows)[:, None]
    last = (n_tiles - 1) % stages
    mbarrier.wait(v_full.index(last), ((n_tiles - 1) // stages) & 1)
    o = warpgroup_mma(weights, v_bufs.index(last), o, is_async=True)
    o = warpgroup_mma_wait(0, deps=(o,))
    o = o / gl.convert_layout(total, o_rows)[:, None]
    q.store(o.to(q_desc.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(o_desc, [q_row + 64 * which, 0], q)
    tma.store_wait(0)
    offsets = q_row + 64 * which + gl.arange(0, 64, rows)
    gl.store(lse_ptr + offsets, m + gl.log2(total))


@gluon.jit
def attend_first(descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N: gl.constexpr):
    attend(0, descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N)


@gluon.jit
def attend_second(descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N: gl.constexpr):
    attend(1, descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N)


@gluon.jit
def attention_kernel(
    q_desc, k_desc, v_desc, o_desc, lse_ptr, n_ctx, scale, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Attention as FlashAttention-3 has it: a ring of keys and values, two consumers in step."""
    d: gl.constexpr = q_desc.block_type.shape[1]
    q_bufs = gl.allocate_shared_memory(q_desc.dtype, [2, 64, d], q_desc.layout)
    k_bufs = gl.allocate_shared_memory(k_desc.dtype, [STAGES, BLOCK_N, d], k_desc.layout)
    v_bufs = gl.allocate_shared_memory(v_desc.dtype, [STAGES, BLOCK_N, d], v_desc.layout)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_empty.index(i), count=2)
    for i in gl.static_range(2):
        mbarrier.init(q_full.index(i), count=1)
    fence_async_shared()
    descs = (q_desc, k_desc, v_desc, o_desc)
    bars = (k_full, k_empty, v_full, v_empty, q_full)
    bufs = (q_bufs, k_bufs, v_bufs)
    head = gl.program_id(1) * n_ctx
    row = (head + gl.program_id(0) * 128, head)
    n_tiles = n_ctx // BLOCK_N
    gl.warp_specialize(
        [
            (attend_first, (descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N)),
            (attend_second, (descs, bars, bufs, row, n_tiles, scale, lse_ptr, BLOCK_N)),
            (load_keys_and_values, (descs, bars, bufs, row, n_tiles, BLOCK_N)),
        ],
        [4, 1],
        [240, 24],
    )
