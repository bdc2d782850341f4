"""Max pooling: the kernels are attributes of a class."""

import torch
import triton
import triton.language as tl


class MaxPool:
    """Pool rows with a window, a stride and padding."""

    @staticmethod
    @triton.jit
    def forward_kernel(x, y, where, n_in, n_out, WINDOW: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip # noqa: E501
        row, out = tl.program_id(0), tl.arange(0, BLOCK)
        best = tl.full([BLOCK], -float("inf"), tl.float32)
        best_at = tl.full([BLOCK], -1, tl.int32)
        for i in range(WINDOW):
            at = out * STRIDE + i - PAD
            inside = (at >= 0) & (at < n_in) & (out < n_out)
            value = tl.load(x + row * n_in + at, inside, other=-float("inf"))
            best_at = tl.where(value > best, at, best_at)
            best = tl.maximum(best, value)
        tl.store(y + row * n_out + out, best, out < n_out)
        tl.store(where + row * n_out + out, best_at, out < n_out)

    def __init__(self, window, stride, pad=0):
        self.window, self.stride, self.pad = window, stride, pad

    def __call__(self, x):
        rows, n_in = x.shape
        n_out = (n_in + 2 * self.pad - self.window) // self.stride + 1
        y = x.new_empty(rows, n_out)
        where = x.new_empty(rows, n_out, dtype=torch.int32)
        compiled = self.forward_kernel[rows, 1](
            x, y, where, n_in, n_out, WINDOW=self.window, STRIDE=self.stride, PAD=self.pad,
            BLOCK=triton.next_power_of_2(n_out), num_warps=1,
        )  # fmt: skip
        assert compiled.n_spills == 0, f"{compiled.n_regs} registers were too few"
        return y, where
