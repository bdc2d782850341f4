"""Attention of one head, by block pointers."""

import math

import torch
import triton
import triton.language as tl


@triton.jit
def _attn_fwd(
    Q, K, V, Out, sm_scale,
    stride_qh, stride_qm, stride_qk, stride_kh, stride_kn, stride_kk, stride_vh, stride_vn,
    stride_vk, stride_oh, stride_om, stride_ok, n_ctx,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    start_m = tl.program_id(0)
    head = tl.program_id(1)
    q_ptr = tl.make_block_ptr(
        Q + head * stride_qh, (n_ctx, HEAD_DIM), (stride_qm, stride_qk), (start_m * BLOCK_M, 0),
        (BLOCK_M, HEAD_DIM), (1, 0),
    )  # fmt: skip
    k_ptr = tl.make_block_ptr(
        K + head * stride_kh, (HEAD_DIM, n_ctx), (stride_kk, stride_kn), (0, 0),
        (HEAD_DIM, BLOCK_N), (0, 1),
    )  # fmt: skip
    v_ptr = tl.make_block_ptr(
        V + head * stride_vh, (n_ctx, HEAD_DIM), (stride_vn, stride_vk), (0, 0),
        (BLOCK_N, HEAD_DIM), (1, 0),
    )  # fmt: skip
    rows = start_m * BLOCK_M + tl.arange(0, BLOCK_M)
    m_i = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    l_i = tl.zeros([BLOCK_M], dtype=tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], dtype=tl.float32)
    q = tl.load(q_ptr, boundary_check=(0,), padding_option="zero")
    hi = (start_m + 1) * BLOCK_M if CAUSAL else n_ctx
    for start_n in range(0, hi, BLOCK_N):
        k = tl.load(k_ptr, boundary_check=(1,), padding_option="zero")
        cols = start_n + tl.arange(0, BLOCK_N)
        s = tl.dot(q, k) * sm_scale
        s = tl.where(cols[None, :] < n_ctx, s, float("-inf"))
        if CAUSAL:
            s = tl.where(rows[:, None] >= cols[None, :], s, float("-inf"))
        m_new = tl.maximum(m_i, tl.max(s, 1))
        p = tl.math.exp2((s - m_new[:, None]) * 1.4426950408889634)
        alpha = tl.math.exp2((m_i - m_new) * 1.4426950408889634)
        l_i = l_i * alpha + tl.sum(p, 1)
        v = tl.load(v_ptr, boundary_check=(0,), padding_option="zero")
        acc = acc * alpha[:, None] + tl.dot(p.to(v.dtype), v)
        m_i = m_new
        k_ptr = tl.advance(k_ptr, (0, BLOCK_N))
        v_ptr = tl.advance(v_ptr, (BLOCK_N, 0))
    o_ptr = tl.make_block_ptr(
        Out + head * stride_oh, (n_ctx, HEAD_DIM), (stride_om, stride_ok), (start_m * BLOCK_M, 0),
        (BLOCK_M, HEAD_DIM), (1, 0),
    )  # fmt: skip
    tl.store(o_ptr, (acc / l_i[:, None]).to(Out.dtype.element_ty), boundary_check=(0,))


def attention(q, k, v, causal=True):
    heads, n_ctx, head_dim = q.shape
    o = torch.empty_like(q)
    grid = (triton.cdiv(n_ctx, 16), heads, 1)
    _attn_fwd[grid](
        q, k, v, o, 1.0 / math.sqrt(head_dim), *q.stride(), *k.stride(), *v.stride(), *o.stride(),
        n_ctx, HEAD_DIM=head_dim, BLOCK_M=16, BLOCK_N=16, CAUSAL=causal, num_warps=4, num_stages=3,
    )  # fmt: skip
    return o
