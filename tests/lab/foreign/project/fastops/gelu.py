"""GELU, launched inside torch.compile."""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice

ROOT_HALF: tl.constexpr = tl.constexpr(0.7071067811865476)


@triton.jit
def gelu_kernel(in_ptr0, out_ptr0, xnumel, XBLOCK: tl.constexpr):
    xoffset = tl.program_id(0) * XBLOCK
    xindex = xoffset + tl.arange(0, XBLOCK)[:]
    xmask = xindex < xnumel
    tmp0 = tl.load(in_ptr0 + xindex, xmask).to(tl.float32)
    tmp1 = 0.5 * tmp0 * (1.0 + libdevice.erf(tmp0 * ROOT_HALF))
    tl.store(out_ptr0 + xindex, tmp1, xmask)


@torch.compile(fullgraph=True)
def gelu(x):
    out = torch.empty_like(x)
    gelu_kernel[(triton.cdiv(x.numel(), 128),)](x, out, x.numel(), XBLOCK=128)
    return out
