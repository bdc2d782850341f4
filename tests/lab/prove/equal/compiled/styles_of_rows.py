# ruff: noqa: E501
"""Kernels in the styles that others write, each with its reference in eager PyTorch or NumPy.

None is this project's: names, masks, loops and launches are as in tutorials, Liger, fla and what
torch.compile emits. A twin that is not to be followed says so by its name, `unfollowed_`.
"""

import numpy as np
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from triton.language.extra import libdevice

import gptwin

N = {"normal": [5, 37]}


def twin(kernel, reference, *cases, **options):
    options = {"dtypes": ["float32"], "layouts": ["contiguous"]} | options
    return gptwin.twin(kernel, reference, cases=cases, corners=cases, **options)


# --- torch.compile's style: flat, one block, temporaries ------------------------------------------


@triton.jit
def fused_bias_gelu(in_ptr0, in_ptr1, out_ptr0, xnumel, ks0, XBLOCK: tl.constexpr):
    xoffset = tl.program_id(0) * XBLOCK
    xindex = xoffset + tl.arange(0, XBLOCK)[:]
    xmask = xindex < xnumel
    x0 = xindex % ks0
    tmp0 = tl.load(in_ptr0 + xindex, xmask)
    tmp1 = tl.load(in_ptr1 + x0, xmask, eviction_policy="evict_last")
    tmp2 = tmp0 + tmp1
    tmp3 = 0.7071067811865476
    tmp4 = libdevice.erf(tmp2 * tmp3)
    tmp5 = tmp2 * 0.5 * (tmp4 + 1.0)
    tl.store(out_ptr0 + xindex, tmp5, xmask)


def bias_gelu(x, b):
    out = torch.empty_like(x)
    fused_bias_gelu[(triton.cdiv(x.numel(), 64),)](x, b, out, x.numel(), x.shape[1], XBLOCK=64)
    return out


BIAS_GELU = twin(bias_gelu, lambda x, b: F.gelu(x + b), {"x": N, "b": {"normal": [37]}})


# --- Liger's style: a row a program, gradients saved or recomputed --------------------------------


@triton.jit
def _rms_forward(Y, X, W, RSTD, n_cols, eps, BLOCK_SIZE: tl.constexpr):
    row_idx = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK_SIZE)
    mask = cols < n_cols
    X_row = tl.load(X + row_idx * n_cols + cols, mask=mask, other=0)
    mean_square = tl.sum(X_row * X_row, axis=0) / n_cols
    rstd = libdevice.rsqrt(mean_square + eps)
    tl.store(RSTD + row_idx, rstd)
    W_row = tl.load(W + cols, mask=mask, other=0)
    tl.store(Y + row_idx * n_cols + cols, X_row * rstd * W_row, mask=mask)


@triton.jit
def _rms_backward(dY, X, W, RSTD, dX, dW, n_rows, n_cols, per_program, BLOCK_SIZE: tl.constexpr):
    first = tl.program_id(0) * per_program
    cols = tl.arange(0, BLOCK_SIZE)
    mask = cols < n_cols
    W_row = tl.load(W + cols, mask=mask, other=0.0)
    dW_row = tl.zeros((BLOCK_SIZE,), dtype=tl.float32)
    for row in range(first, min(first + per_program, n_rows)):
        dY_row = tl.load(dY + row * n_cols + cols, mask=mask, other=0.0)
        X_row = tl.load(X + row * n_cols + cols, mask=mask, other=0.0)
        rstd = tl.load(RSTD + row)
        m = dY_row * W_row
        dX_row = rstd * m
        dX_row += rstd * (-(1 / n_cols) * rstd * rstd * tl.sum(m * X_row, axis=0) * X_row)
        tl.store(dX + row * n_cols + cols, dX_row, mask=mask)
        dW_row += dY_row * (X_row * rstd)
    tl.store(dW + tl.program_id(0) * n_cols + cols, dW_row, mask=mask)


class _RMS(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        rows, n = x.shape
        y, rstd = torch.empty_like(x), torch.empty(rows, device=x.device)
        _rms_forward[(rows,)](y, x, w, rstd, n, 1e-6, BLOCK_SIZE=triton.next_power_of_2(n))
        ctx.save_for_backward(x, w, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, rstd = ctx.saved_tensors
        rows, n = x.shape
        programs = 2
        dx, dw = torch.empty_like(x), torch.empty(programs, n, device=x.device)
        _rms_backward[(programs,)](
            dy.contiguous(), x, w, rstd, dx, dw, rows, n, triton.cdiv(rows, programs),
            BLOCK_SIZE=triton.next_power_of_2(n),
        )  # fmt: skip
        return dx, dw.sum(dim=0)


RMS = twin(lambda x, w: _RMS.apply(x, w), lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-6),
           {"x": N, "w": {"normal": [37]}})  # fmt: skip


@triton.jit
def _swiglu_forward(a_ptr, b_ptr, c_ptr, n, BLOCK_SIZE: tl.constexpr):
    at = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    a = tl.load(a_ptr + at, mask=at < n, other=0)
    b = tl.load(b_ptr + at, mask=at < n, other=0)
    tl.store(c_ptr + at, a * tl.sigmoid(a) * b, mask=at < n)


@triton.jit
def _swiglu_backward(dc_ptr, a_ptr, b_ptr, n, BLOCK_SIZE: tl.constexpr):
    at = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    dc = tl.load(dc_ptr + at, mask=at < n, other=0)
    a = tl.load(a_ptr + at, mask=at < n, other=0)
    b = tl.load(b_ptr + at, mask=at < n, other=0)
    sig_a = tl.sigmoid(a)
    silu_a = a * sig_a
    tl.store(a_ptr + at, dc * (silu_a * (1 - sig_a) + sig_a) * b, mask=at < n)
    tl.store(b_ptr + at, dc * silu_a, mask=at < n)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        c = torch.empty_like(a)
        _swiglu_forward[(triton.cdiv(a.numel(), 128),)](a, b, c, a.numel(), BLOCK_SIZE=128)
        ctx.save_for_backward(a, b)
        return c

    @staticmethod
    def backward(ctx, dc):
        a, b = (t.clone() for t in ctx.saved_tensors)  # written over
        _swiglu_backward[(triton.cdiv(a.numel(), 128),)](
            dc.contiguous(), a, b, a.numel(), BLOCK_SIZE=128
        )
        return a, b


SWIGLU = twin(lambda a, b: _SwiGLU.apply(a, b), lambda a, b: F.silu(a) * b, {"a": N, "b": N})


@triton.jit
def _cross_entropy(X_ptr, Y_ptr, loss_ptr, n_cols, n_rows, BLOCK_SIZE: tl.constexpr):
    """The gradient is written over the logits."""
    row = tl.program_id(0).to(tl.int64)
    y = tl.load(Y_ptr + row)
    X_ptr += row * n_cols
    m, d = float("-inf"), 0.0
    ori_X_y = tl.load(X_ptr + y)
    for i in range(0, n_cols, BLOCK_SIZE):
        at = i + tl.arange(0, BLOCK_SIZE)
        block = tl.load(X_ptr + at, mask=at < n_cols, other=float("-inf"))
        m_new = tl.maximum(m, tl.max(block))
        d = d * tl.exp(m - m_new) + tl.sum(tl.exp(block - m_new))
        m = m_new
    lse = m + tl.log(d)
    for i in range(0, n_cols, BLOCK_SIZE):
        at = i + tl.arange(0, BLOCK_SIZE)
        block = tl.load(X_ptr + at, mask=at < n_cols, other=float("-inf"))
        block = tl.exp(block - m) / d / n_rows
        block = tl.where(at != y, block, block - 1 / n_rows)
        tl.store(X_ptr + at, block, mask=at < n_cols)
    tl.store(loss_ptr + row, (lse - ori_X_y) / n_rows)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        d_x, loss = x.clone(), torch.zeros(len(x), device=x.device)
        _cross_entropy[(len(x),)](d_x, y, loss, x.shape[1], len(x), BLOCK_SIZE=16)
        ctx.save_for_backward(d_x)
        return loss.sum()

    @staticmethod
    def backward(ctx, d):
        return ctx.saved_tensors[0] * d, None


CROSS_ENTROPY = twin(lambda x, y: _CrossEntropy.apply(x, y), F.cross_entropy,
                     {"x": N, "y": {"integers": [5], "below": 37}})  # fmt: skip


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


HEADS = {"normal": [2, 37, 16]}
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


# --- what decides ---------------------------------------------------------------------------------


@triton.jit
def max_pool_kernel(x, y, n_in, n_out, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    row, out = tl.program_id(0), tl.arange(0, BLOCK)
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    for i in tl.static_range(WINDOW):
        at = out * 2 + i - 1
        inside = (at >= 0) & (at < n_in) & (out < n_out)
        best = tl.maximum(best, tl.load(x + row * n_in + at, inside, other=-float("inf")))
    tl.store(y + row * n_out + out, best, out < n_out)


def max_pool(x):
    n_out = (x.shape[1] - 1) // 2 + 1
    y = x.new_empty(len(x), n_out)
    max_pool_kernel[(len(x),)](x, y, x.shape[1], n_out, WINDOW=3, BLOCK=32)
    return y


def max_pool_reference(x):
    padded = F.pad(x, (1, 2), value=-torch.inf)
    windows = [padded[:, i : i + x.shape[1] : 2] for i in range(3)]
    return torch.maximum(torch.maximum(windows[0], windows[1]), windows[2])


MAX_POOL = twin(max_pool, max_pool_reference, {"x": N})


@triton.jit
def argmax_kernel(x_ptr, value_ptr, at_ptr, n, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
    best, best_at = tl.max(x, axis=0, return_indices=True)
    tl.store(value_ptr + row, best)
    tl.store(at_ptr + row, best_at)


def argmax(x):
    value = torch.empty(len(x), device=x.device)
    at = torch.empty(len(x), dtype=torch.int32, device=x.device)
    argmax_kernel[(len(x),)](x, value, at, x.shape[1], BLOCK=64)
    return value, at


ARGMAX = twin(argmax, lambda x: (x.amax(1), x.argmax(1).int()), {"x": N})


@triton.jit
def relu_squared_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    x = tl.where(x > 0, x, 0.0)
    tl.store(y_ptr + at, x * x, mask=at < n)


def relu_squared(x):
    y = torch.empty_like(x)
    relu_squared_kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), BLOCK=64)
    return y


RELU_SQUARED = twin(relu_squared, lambda x: F.relu(x).square(), {"x": N})


@triton.jit
def jsd_kernel(x_ptr, y_ptr, loss_ptr, n, beta, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n + at, mask=at < n, other=-float("inf"))
    y = tl.load(y_ptr + row * n + at, mask=at < n, other=-float("inf"))
    q, p = tl.exp(x), tl.exp(y)
    m = beta * p + (1 - beta) * q
    log_m = tl.log(tl.where(at < n, m, 1.0))
    terms = beta * p * (y - log_m) + (1 - beta) * q * (x - log_m)
    tl.store(loss_ptr + row, tl.sum(tl.where(at < n, terms, 0.0)))


def jsd(x, y):
    loss = torch.empty(len(x), device=x.device)
    jsd_kernel[(len(x),)](x, y, loss, x.shape[1], 0.3, BLOCK=64)
    return loss


def jsd_reference(x, y):
    q, p = x.exp(), y.exp()
    log_m = torch.log(0.3 * p + 0.7 * q)
    return (0.3 * p * (y - log_m) + 0.7 * q * (x - log_m)).sum(1)


JSD = twin(jsd, jsd_reference, {"x": N, "y": N})


# --- what is not followed, and says so ------------------------------------------------------------


@triton.jit
def sine_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.sin(tl.load(x_ptr + at, mask=at < n)), mask=at < n)


def sine(x):
    y = torch.empty_like(x)
    sine_kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), BLOCK=64)
    return y


unfollowed_SINE = twin(sine, torch.sin, {"x": N})


def by_another_s_operation(x):
    return relu_squared(torch.special.bessel_j0(x))


unfollowed_BESSEL = twin(by_another_s_operation, lambda x: torch.special.bessel_j0(x).relu().square(), {"x": N})  # fmt: skip
