# ruff: noqa: E501
"""Kernels in the styles that others write, each with its reference: a row or a block a program.

None is this project's: names, masks and launches are as in Liger and in what torch.compile emits.
A twin that is not to be followed says so by its name, `unfollowed_`. What loops, scans or adds
from several programs stands in styles_of_loops.py.
"""

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
