"""GELU on the CPU, for training: its slope is computed where its value is.

    y = x·s      s = sigmoid(x·(a + b·x²))        a = 2·sqrt(2/π), b = 0.044715·a: the tanh form
    slope = s + y·(1 − s)·(a + 3·b·x²)            d_x = d_y·slope

PyTorch's kernel keeps x and computes the hyperbolic tangent again in backward. Here forward keeps
the slope in x's place, for the same memory, and backward is one multiplication. A strip at a time
stays in the cache, so that several simple passes cost less than the function computed twice.
"""

import math

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers in a strip, for each thread: 256 KB in float32.
STRIP = 2**16

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y, slope = torch.empty_like(x), torch.empty_like(x)
        length = STRIP * torch.get_num_threads()
        strips = (t.view(-1).split(length) for t in (x, y, slope))
        for x_strip, y_strip, s in zip(*strips, strict=True):
            square = x_strip * x_strip
            torch.addcmul(x_strip, x_strip, square, value=_CUBIC, out=s)
            s.mul_(_LINEAR).sigmoid_()
            torch.mul(x_strip, s, out=y_strip)
            square.mul_(3 * _CUBIC * _LINEAR).add_(_LINEAR)
            # slope = s + y·(1 − s)·(a + 3·b·x²), over s
            s.addcmul_(torch.addcmul(y_strip, y_strip, s, value=-1), square)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y):
        (slope,) = ctx.saved_tensors
        return d_y * slope


def gelu_keeping_slope(x: torch.Tensor) -> torch.Tensor:
    """Compute GELU in its tanh form.

    Parameters
    ----------
    x : torch.Tensor
        Any shape. Half precision, and what is not trained or is compiled, is left to PyTorch.

    Returns
    -------
    torch.Tensor
        Shaped like `x`.
    """
    exact = x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
    if (
        not exact
        or torch.compiler.is_compiling()
        or not (torch.is_grad_enabled() and x.requires_grad)
    ):
        return functional.gelu(x, approximate="tanh")
    return _GELU.apply(x)
