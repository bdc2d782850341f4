"""GELU on the CPU, for training: its slope is computed where its value is.

    y = x·s                      s = sigmoid(u), u = x·(a + b·x²)
    slope = s + y·w·(1 − s)      w = du/dx = a + 3·b·x²
    d_x = d_y·slope              a = 2·sqrt(2/π), b = 0.044715·a: the tanh form

PyTorch's kernel keeps x and computes the hyperbolic tangent again in backward. Here forward writes
the slope over x, so it takes no further memory, and backward is one multiplication. A strip at a
time stays in the cache, so that several simple passes cost less than the function computed twice.
Under torch.compile the first line alone is written out: Inductor is faster at a sigmoid than at the
hyperbolic tangent of its own GELU.
"""

import math

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers in a strip, for each thread: 256 KB in float32.
STRIP = 2**16

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR
# a and 1 as tensors, which is what these operators take.
_CONSTANTS = {
    dtype: torch.tensor([_LINEAR, 1.0], dtype=dtype, device="cpu").unbind()
    for dtype in (torch.float32, torch.float64)
}


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.empty_like(x)
        a, one = _CONSTANTS[x.dtype]
        length = STRIP * torch.get_num_threads()
        strips = (t.view(-1).split(length) for t in (x, y))
        for x_strip, y_strip in zip(*strips, strict=True):
            s = torch.addcmul(a, x_strip, x_strip, value=_CUBIC).mul_(x_strip).sigmoid_()
            torch.mul(x_strip, s, out=y_strip)
            w = torch.addcmul(a, x_strip, x_strip, value=3 * _CUBIC)
            torch.lerp(s, one, w.mul_(y_strip), out=x_strip)  # the slope: s + y·w·(1 − s)
        ctx.save_for_backward(x)
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
        Any shape. It is written over: for what nobody else reads, such as a product. Half
        precision, a GPU, and what is not trained, is left to PyTorch.

    Returns
    -------
    torch.Tensor
        Shaped like `x`.
    """
    trained = torch.is_grad_enabled() and x.requires_grad
    if not trained or x.dtype not in _CONSTANTS or x.device.type != "cpu":
        return functional.gelu(x, approximate="tanh")
    if torch.compiler.is_compiling():  # Inductor fuses these passes, and has no fast tanh
        return x * torch.sigmoid(x * (_LINEAR + _CUBIC * x * x))
    return _GELU.apply(x.contiguous())
