# ruff: noqa: E501
"""Kernels in the styles that others write, with their references: tiles, loops, scans, atomics.

None is this project's: names, masks, loops and launches are as in tutorials, Liger and fla. Others
stand in styles_of_rows.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from styles_of_rows import N, twin

# --- the tutorials' style -------------------------------------------------------------------------


@triton.jit
def softmax_kernel(out, inp, stride, n_rows, n_cols, BLOCK_SIZE: tl.constexpr):
    for row in tl.range(tl.program_id(0), n_rows, tl.num_programs(0), num_stages=2):
        at = tl.arange(0, BLOCK_SIZE)
        x = tl.load(inp + row * stride + at, mask=at < n_cols, other=-1e30)
        numerator = tl.exp(x - tl.max(x, axis=0))
        tl.store(out + row * stride + at, numerator / tl.sum(numerator, axis=0), mask=at < n_cols)


def softmax(x):
    y = torch.empty_like(x)
    softmax_kernel[(2,)](y, x, x.stride(0), *x.shape, BLOCK_SIZE=64)
    return y


SOFTMAX = twin(softmax, lambda x: torch.softmax(x, -1), {"x": N})


@triton.autotune([triton.Config({"BM": 16, "BN": 16, "BK": 16}), triton.Config({"BM": 32, "BN": 16, "BK": 32})], key=["M"])  # fmt: skip
@triton.jit
def matmul_kernel(a, b, c, M, N, K, am, ak, bk, bn, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    pid = tl.program_id(0)
    num_n = tl.cdiv(N, BN)
    group = pid // (2 * num_n)
    size = min(tl.cdiv(M, BM) - group * 2, 2)
    pid_m, pid_n = group * 2 + (pid % (2 * num_n)) % size, (pid % (2 * num_n)) // size
    rows, cols = (pid_m * BM + tl.arange(0, BM)) % M, (pid_n * BN + tl.arange(0, BN)) % N
    inner = tl.arange(0, BK)
    a_ptrs, b_ptrs = a + rows[:, None] * am + inner * ak, b + inner[:, None] * bk + cols * bn
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, tl.cdiv(K, BK)):
        x = tl.load(a_ptrs, mask=inner[None, :] < K - k * BK, other=0.0)
        acc = tl.dot(x, tl.load(b_ptrs, mask=inner[:, None] < K - k * BK, other=0.0), acc)
        a_ptrs += BK * ak
        b_ptrs += BK * bk
    acc = tl.where(acc >= 0, acc, 0.01 * acc)
    rows, cols = pid_m * BM + tl.arange(0, BM), pid_n * BN + tl.arange(0, BN)
    tl.store(c + N * rows[:, None] + cols, acc, mask=(rows[:, None] < M) & (cols[None, :] < N))


def matmul(a, b):
    c = torch.empty(a.shape[0], b.shape[1], device=a.device)
    grid = lambda META: (triton.cdiv(a.shape[0], META["BM"]) * triton.cdiv(b.shape[1], META["BN"]),)  # noqa: E731
    matmul_kernel[grid](a, b, c, len(a), b.shape[1], a.shape[1], *a.stride(), *b.stride())
    return c


MATMUL = twin(matmul, lambda a, b: F.leaky_relu(a @ b, 0.01),
              {"a": {"normal": [40, 21]}, "b": {"normal": [21, 35]}})  # fmt: skip


@triton.jit
def attention_kernel(Q, K, V, O, L, n_ctx, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):  # fmt: skip # noqa: E741
    start, head = tl.program_id(0), tl.program_id(1)
    at = head * n_ctx * D
    q_block = tl.make_block_ptr(Q + at, (n_ctx, D), (D, 1), (start * BM, 0), (BM, D), (1, 0))
    k_block = tl.make_block_ptr(K + at, (D, n_ctx), (1, D), (0, 0), (D, BN), (0, 1))
    v_block = tl.make_block_ptr(V + at, (n_ctx, D), (D, 1), (0, 0), (BN, D), (1, 0))
    rows = start * BM + tl.arange(0, BM)
    m_i = tl.zeros([BM], dtype=tl.float32) - float("inf")
    l_i = tl.zeros([BM], dtype=tl.float32) + 1.0
    acc = tl.zeros([BM, D], dtype=tl.float32)
    qk_scale = scale * 1.44269504
    q = tl.load(q_block, boundary_check=(0,), padding_option="zero")
    for n in range(0, (start + 1) * BM, BN):
        k = tl.load(k_block, boundary_check=(1,), padding_option="zero")
        cols = n + tl.arange(0, BN)
        mask = (rows[:, None] >= cols[None, :]) & (cols[None, :] < n_ctx)
        qk = tl.dot(q, k) * qk_scale + tl.where(mask, 0, -1.0e6)
        m_ij = tl.maximum(m_i, tl.max(qk, 1))
        p = tl.math.exp2(qk - m_ij[:, None])
        alpha = tl.math.exp2(m_i - m_ij)
        l_i = l_i * alpha + tl.sum(p, 1)
        v = tl.load(v_block, boundary_check=(0,), padding_option="zero")
        acc = acc * alpha[:, None] + tl.dot(p, v)
        m_i = m_ij
        k_block = tl.advance(k_block, (0, BN))
        v_block = tl.advance(v_block, (BN, 0))
    tl.store(L + head * n_ctx + rows, m_i + tl.math.log2(l_i), mask=rows < n_ctx)
    o_block = tl.make_block_ptr(O + at, (n_ctx, D), (D, 1), (start * BM, 0), (BM, D), (1, 0))
    tl.store(o_block, acc / l_i[:, None], boundary_check=(0,))


def attention(q, k, v):
    o, lse = torch.empty_like(q), torch.empty(q.shape[:2], device=q.device)
    grid = (triton.cdiv(q.shape[1], 16), q.shape[0])
    attention_kernel[grid](q, k, v, o, lse, q.shape[1], 0.25, D=16, BM=16, BN=16)
    return o


def attention_reference(q, k, v):
    scores = q @ k.transpose(-1, -2) * 0.25
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ v


HEADS = {"normal": [2, 21, 16]}
ATTENTION = twin(attention, attention_reference, {"q": HEADS, "k": HEADS, "v": HEADS})


# --- reductions of one's own, scans, loops --------------------------------------------------------


@triton.jit
def _welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    share = tl.where(n == 0.0, 0.0, n_b / n)
    delta = mean_b - mean_a
    return mean_a + delta * share, m2_a + m2_b + delta * delta * n_a * share, n


@triton.jit
def layer_norm_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=0.0)
    ones = (at < n).to(tl.float32)
    mean, m2, count = tl.reduce((x, tl.zeros([BLOCK], tl.float32), ones), 0, _welford)
    y = (x - mean) / tl.sqrt(m2 / count + 1e-5)
    tl.store(y_ptr + row * n + at, y, mask=at < n)


def layer_norm(x):
    y = torch.empty_like(x)
    layer_norm_kernel[(len(x),)](x, y, x.shape[1], BLOCK=64)
    return y


LAYER_NORM = twin(layer_norm, lambda x: F.layer_norm(x, x.shape[-1:]), {"x": N})


def layer_norm_in_numpy(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)


LAYER_NORM_IN_NUMPY = twin(layer_norm, layer_norm_in_numpy, {"x": N})


@triton.jit
def _compose(a, b, c, d):
    return a * c, b * c + d


@triton.jit
def linear_scan_kernel(a_ptr, x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    a = tl.load(a_ptr + row * n + at, mask=at < n, other=1.0)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=0.0)
    _, y = tl.associative_scan((a, x), 0, _compose)
    tl.store(y_ptr + row * n + at, y, mask=at < n)


def linear_scan(a, x):
    y = torch.empty_like(x)
    linear_scan_kernel[(len(x),)](a, x, y, x.shape[1], BLOCK=64)
    return y


def linear_scan_reference(a, x):
    rows = [x[:, 0]]
    for t in range(1, x.shape[1]):
        rows.append(a[:, t] * rows[-1] + x[:, t])
    return torch.stack(rows, dim=1)


LINEAR_SCAN = twin(linear_scan, linear_scan_reference, {"a": N, "x": N})


@triton.jit
def cumsum_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    carry, start = 0.0, 0
    while start < n:
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * n + at, mask=at < n, other=0.0)
        tl.store(y_ptr + row * n + at, carry + tl.cumsum(x, axis=0), mask=at < n)
        carry += tl.sum(x)
        start += BLOCK


def cumsum(x):
    y = torch.empty_like(x)
    cumsum_kernel[(len(x),)](x, y, x.shape[1], BLOCK=16)
    return y


CUMSUM = twin(cumsum, lambda x: x.cumsum(1), {"x": N})


@triton.jit
def logsumexp_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
    top = tl.max(x)
    tl.store(y_ptr + row, top + tl.log2(tl.sum(tl.exp2((x - top) * 1.4426950408889634))) / 1.4426950408889634)  # fmt: skip


def logsumexp(x):
    y = torch.empty(len(x), device=x.device)
    logsumexp_kernel[(len(x),)](x, y, x.shape[1], BLOCK=64)
    return y


LOGSUMEXP = twin(logsumexp, lambda x: torch.logsumexp(x, 1), {"x": N})


@triton.jit
def linear_attention_kernel(q_ptr, k_ptr, v_ptr, o_ptr, T, D: tl.constexpr, BT: tl.constexpr):
    """A chunk at a time, with the state of all before it (fla)."""
    head = tl.program_id(0)
    state = tl.zeros([D, D], dtype=tl.float32)
    i, j = tl.arange(0, BT), tl.arange(0, D)
    for start in range(0, T, BT):
        at = head * T * D + (start + i)[:, None] * D + j[None, :]
        mask = (start + i)[:, None] < T
        q, k, v = (tl.load(q_ptr + at, mask, 0.0), tl.load(k_ptr + at, mask, 0.0), tl.load(v_ptr + at, mask, 0.0))  # fmt: skip
        inner = tl.where(i[:, None] >= i[None, :], tl.dot(q, tl.trans(k)), 0)
        tl.store(o_ptr + at, tl.dot(q, state) + tl.dot(inner, v), mask)
        state += tl.dot(tl.trans(k), v)


def linear_attention(q, k, v):
    o = torch.empty_like(q)
    linear_attention_kernel[(len(q),)](q, k, v, o, q.shape[1], D=16, BT=16)
    return o


LINEAR_ATTENTION = twin(linear_attention, lambda q, k, v: (q @ k.transpose(1, 2)).tril() @ v,
                        {"q": HEADS, "k": HEADS, "v": HEADS})  # fmt: skip


# --- atomics, in place, tables --------------------------------------------------------------------


@triton.jit
def split_k_kernel(a, b, c, M, N, K, BM: tl.constexpr, BK: tl.constexpr):
    rows, cols = tl.arange(0, BM), tl.arange(0, BM)
    inner = tl.program_id(0) * BK + tl.arange(0, BK)
    x = tl.load(a + rows[:, None] * K + inner, mask=(rows[:, None] < M) & (inner < K), other=0.0)
    y = tl.load(b + inner[:, None] * N + cols, mask=(inner[:, None] < K) & (cols < N), other=0.0)
    where = (rows[:, None] < M) & (cols[None, :] < N)
    tl.atomic_add(c + rows[:, None] * N + cols, tl.dot(x, y), mask=where)


def split_k(a, b):
    c = torch.zeros(len(a), b.shape[1], device=a.device)
    split_k_kernel[(triton.cdiv(a.shape[1], 16),)](a, b, c, len(a), b.shape[1], a.shape[1], BM=16, BK=16)  # fmt: skip
    return c


SPLIT_K = twin(split_k, lambda a, b: a @ b, {"a": {"normal": [7, 50]}, "b": {"normal": [50, 11]}})


@triton.jit
def embedding_backward_kernel(ids_ptr, d_ptr, out_ptr, width, BLOCK: tl.constexpr):
    token, at = tl.program_id(0), tl.arange(0, BLOCK)
    row = tl.load(ids_ptr + token)
    d = tl.load(d_ptr + token * width + at, mask=at < width)
    tl.atomic_add(out_ptr + row * width + at, d, mask=at < width)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, ids):
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        out = torch.zeros(len(ids), table.shape[1], device=table.device)
        for_ones = torch.arange(len(ids), dtype=torch.int64, device=table.device)
        embedding_backward_kernel[(len(ids),)](for_ones, table[ids], out, table.shape[1], BLOCK=8)
        return out

    @staticmethod
    def backward(ctx, d):
        (ids,) = ctx.saved_tensors
        out = torch.zeros(ctx.shape, device=d.device)
        embedding_backward_kernel[(len(ids),)](ids, d.contiguous(), out, d.shape[1], BLOCK=8)
        return out, None


EMBEDDING = twin(lambda table, ids: _Embedding.apply(table, ids),
                 lambda table, ids: F.embedding(ids, table),
                 {"table": {"normal": [4, 6]}, "ids": {"integers": [9], "below": 4}})  # fmt: skip


@triton.jit
def sgd_kernel(p_ptr, m_ptr, g_ptr, n, lr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = 0.9 * tl.load(m_ptr + i, mask=i < n) + tl.load(g_ptr + i, mask=i < n)
    tl.store(m_ptr + i, m, mask=i < n)
    tl.store(p_ptr + i, tl.load(p_ptr + i, mask=i < n) - lr * m, mask=i < n)


def sgd_(p, m, g, lr):
    sgd_kernel[(triton.cdiv(p.numel(), 64),)](p, m, g, p.numel(), lr, BLOCK=64)


def sgd_reference(p, m, g, lr):
    m.mul_(0.9).add_(g)
    p.sub_(m * lr)


SGD = twin(sgd_, sgd_reference, {"p": N, "m": N, "g": N, "lr": 0.1}, updates=["p", "m"])


@triton.jit
def rotary_kernel(x_ptr, cos_ptr, sin_ptr, y_ptr, half, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    mask = at < half
    a = tl.load(x_ptr + row * 2 * half + at, mask=mask)
    b = tl.load(x_ptr + row * 2 * half + half + at, mask=mask)
    cos = tl.load(cos_ptr + row * half + at, mask=mask)
    sin = tl.load(sin_ptr + row * half + at, mask=mask)
    tl.store(y_ptr + row * 2 * half + at, a * cos - b * sin, mask=mask)
    tl.store(y_ptr + row * 2 * half + half + at, b * cos + a * sin, mask=mask)


def rotary(x, cos, sin):
    y = torch.empty_like(x)
    rotary_kernel[(len(x),)](x, cos, sin, y, x.shape[1] // 2, BLOCK=8)
    return y


def rotary_reference(x, cos, sin):
    a, b = x.chunk(2, dim=1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=1)


ANGLES = {"normal": [5, 6]}
ROTARY = twin(rotary, rotary_reference, {"x": {"normal": [5, 12]}, "cos": ANGLES, "sin": ANGLES})
