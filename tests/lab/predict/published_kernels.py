"""Kernels of which times on a GPU are published, written again: what the model is held against.

Not tests. Twins of a user's own: `gptwin predict published_kernels:ATTENTION_64 --arch sm_90`, in
this folder. Each has the loop, tiles and warps of the published one; published.jsonl beside
lab/predict's code says whose they are, and what was published of them.
"""

import torch
import triton
import triton.language as tl

import gptwin
from gptwin.lab.twins.twin import Cost


@triton.jit
def _attend(
    accumulator, total, highest, query, keys, values, stride, queries, start, end, scale,
    BLOCK_N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    columns, features = tl.arange(0, BLOCK_N), tl.arange(0, D)
    for first in range(start, end, BLOCK_N):
        first = tl.multiple_of(first, BLOCK_N)
        at = (first + columns) * stride
        key = tl.load(keys + at[None, :] + features[:, None])
        scores = tl.dot(query, key)
        if MASKED:
            seen = queries[:, None] >= (first + columns)[None, :]
            scores = scores * scale + tl.where(seen, 0, -1.0e6)
            new = tl.maximum(highest, tl.max(scores, 1))
            scores -= new[:, None]
        else:
            new = tl.maximum(highest, tl.max(scores, 1) * scale)
            scores = scores * scale - new[:, None]
        weights = tl.exp2(scores)
        rescale = tl.exp2(highest - new)
        total = total * rescale + tl.sum(weights, 1)
        accumulator = accumulator * rescale[:, None]
        value = tl.load(values + at[:, None] + features[None, :])
        accumulator = tl.dot(weights.to(value.dtype), value, accumulator)
        highest = new
    return accumulator, total, highest


@triton.jit
def tutorial_attention_kernel(
    query, key, value, output, scale, stride, head_stride, n,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Triton's tutorial 06, as it was before tensor descriptors: no mask but the causal one."""
    tile, head = tl.program_id(0), tl.program_id(1)
    offset = head.to(tl.int64) * head_stride
    rows, features = tile * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, D)
    at = offset + rows[:, None] * stride + features[None, :]
    q = tl.load(query + at)
    accumulator = tl.zeros([BLOCK_M, D], tl.float32)
    total = tl.full([BLOCK_M], 1.0, tl.float32)
    highest = tl.full([BLOCK_M], -float("inf"), tl.float32)
    scale *= 1.44269504
    full = tile * BLOCK_M if CAUSAL else n
    accumulator, total, highest = _attend(
        accumulator, total, highest, q, key + offset, value + offset, stride, rows, 0, full, scale,
        BLOCK_N, D, False,
    )  # fmt: skip
    if CAUSAL:
        accumulator, total, highest = _attend(
            accumulator, total, highest, q, key + offset, value + offset, stride, rows, full,
            full + BLOCK_M, scale, BLOCK_N, D, True,
        )  # fmt: skip
    tl.store(output + at, (accumulator / total[:, None]).to(output.dtype.element_ty))


def _attention(block_m, block_n, warps, stages):
    def attention(query, key, value, causal):
        output = torch.empty_like(query)
        batch, heads, n, d = query.shape
        tutorial_attention_kernel[(triton.cdiv(n, block_m), batch * heads)](
            query, key, value, output, d**-0.5, query.stride(2), query.stride(1), n, D=d,
            BLOCK_M=block_m, BLOCK_N=block_n, CAUSAL=causal, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return output

    return attention


def _attention_reference(query, key, value, causal):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)


def _case(n, d, causal, heads=32):
    shape = {"normal": [4, heads, n, d]}
    return {"query": shape, "key": shape, "value": shape, "causal": causal}


def _attention_cost(case, itemsize):
    batch, heads, n, d = case["query"]["normal"]
    size = batch * heads * n * d * itemsize
    flops = 4 * batch * heads * n * n * d // (2 if case["causal"] else 1)
    return Cost(flops, {"query": size, "key": size, "value": size}, {"result": size}), None


def _attention_twin(d, block_m=128, block_n=64, warps=4, stages=3):
    return gptwin.twin(
        _attention(block_m, block_n, warps, stages), _attention_reference,
        cases=[_case(128, d, False, 1)], dtypes=["float16"], gradients=(), cost=_attention_cost,
        layouts=["contiguous"],
        shapes={"16k": _case(16384, d, False), "16k, causal": _case(16384, d, True)},
    )  # fmt: skip


ATTENTION_64 = _attention_twin(64)
ATTENTION_128 = _attention_twin(128)
# What the tutorial took for wider heads while A100 was what it was tuned for.
ATTENTION_128_NARROW = _attention_twin(128, block_n=32, warps=8)


@triton.jit
def liger_norm_kernel(x, weight, bias, y, mean_ptr, rstd_ptr, stride, n, eps, BLOCK: tl.constexpr):
    """Liger's layer norm, forward: a row for each program."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < n
    values = tl.load(x + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=0) / n
    centred = tl.where(inside, values - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=0) / n + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    scaled = centred * rstd * tl.load(weight + at, mask=inside) + tl.load(bias + at, mask=inside)
    tl.store(y + row * stride + at, scaled, mask=inside)


def _warps(block):
    """Liger's choice: 4 warps, 8 from 2,048 elements, 16 from 8,192, 32 from 32,768."""
    return 32 if block >= 32768 else 16 if block >= 8192 else 8 if block >= 2048 else 4


def liger_norm(x, weight, bias):
    rows, n = x.shape
    y = torch.empty_like(x)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
    block = triton.next_power_of_2(n)
    liger_norm_kernel[(rows,)](
        x, weight, bias, y, mean, rstd, x.stride(0), n, 1e-6, BLOCK=block, num_warps=_warps(block)
    )
    return y


def _norm_case(rows, n):
    return {"x": {"normal": [rows, n]}, "weight": {"normal": [n]}, "bias": {"normal": [n]}}


def _norm_cost(case, itemsize):
    rows, n = case["x"]["normal"]
    size = rows * n * itemsize
    return Cost(8 * rows * n, {"x": size}, {"result": size}), None


NORM = gptwin.twin(
    liger_norm, lambda x, weight, bias: torch.layer_norm(x, weight.shape, weight, bias, 1e-6),
    cases=[_norm_case(3, 64)], dtypes=["float32"], gradients=(), cost=_norm_cost,
    layouts=["contiguous"],
    shapes={f"{n // 1024}k": _norm_case(4096, n) for n in (1024, 4096, 16384)},
)  # fmt: skip


@triton.jit
def liger_loss_kernel(x, targets, losses, stride, n, BLOCK: tl.constexpr):
    """Liger's cross-entropy: two passes over a row; the second leaves its gradient there."""
    row = tl.program_id(0).to(tl.int64)
    x += row * stride
    target = tl.load(targets + row)
    chosen = tl.load(x + target).to(tl.float32)
    highest, total = float("-inf"), 0.0
    for first in range(0, n, BLOCK):
        at = first + tl.arange(0, BLOCK)
        block = tl.load(x + at, mask=at < n, other=float("-inf")).to(tl.float32)
        new = tl.maximum(highest, tl.max(block))
        total = total * tl.exp(highest - new) + tl.sum(tl.exp(block - new))
        highest = new
    for first in range(0, n, BLOCK):
        at = first + tl.arange(0, BLOCK)
        block = tl.load(x + at, mask=at < n, other=float("-inf")).to(tl.float32)
        gradient = tl.exp(block - highest) / total
        gradient = tl.where(at == target, gradient - 1, gradient)
        tl.store(x + at, gradient, mask=at < n)
    tl.store(losses + row, highest + tl.log(total) - chosen)


def liger_loss(x, targets):
    rows, n = x.shape
    losses = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = min(32768, triton.next_power_of_2(n))
    liger_loss_kernel[(rows,)](x, targets, losses, x.stride(0), n, BLOCK=block, num_warps=32)
    return losses


def _loss_reference(x, targets):
    losses = torch.nn.functional.cross_entropy(x, targets, reduction="none")
    return losses, torch.softmax(x, -1) - torch.nn.functional.one_hot(targets, x.shape[1])


def _loss_case(rows, n):
    return {"x": {"normal": [rows, n]}, "targets": {"integers": [rows], "below": n}}


def _loss_cost(case, itemsize):
    rows, n = case["x"]["normal"]
    size = rows * n * itemsize
    return Cost(8 * rows * n, {"x": 2 * size}, {"x": size}), None


LOSS = gptwin.twin(
    liger_loss, _loss_reference, cases=[_loss_case(3, 64)], dtypes=["float32"], gradients=(),
    updates=["x"], cost=_loss_cost, layouts=["contiguous"],
    shapes={f"{n // 1024}k": _loss_case(16384, n) for n in (4096, 16384, 32768, 131072)},
)  # fmt: skip
