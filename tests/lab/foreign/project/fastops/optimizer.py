"""SGD with momentum for many parameters at once; a kernel takes them as tuples, in place."""

import torch
import triton
import triton.language as tl


@triton.jit
def _step(p_ptr, m_ptr, g_ptr, n, lr, momentum, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = momentum * tl.load(m_ptr + i, mask=i < n, other=0.0) + tl.load(
        g_ptr + i, mask=i < n, other=0.0
    )
    tl.store(m_ptr + i, m, mask=i < n)
    tl.store(p_ptr + i, tl.load(p_ptr + i, mask=i < n, other=0.0) - lr * m, mask=i < n)


@triton.jit
def sgd_kernel(weights, momenta, grads, sizes, lr, momentum, BLOCK: tl.constexpr):
    for k in tl.static_range(len(weights)):
        _step(weights[k], momenta[k], grads[k], sizes[k], lr, momentum, BLOCK)


class FusedSGD(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            sizes = tuple(p.numel() for p in params)
            sgd_kernel[(triton.cdiv(max(sizes), 64),)](
                tuple(params), tuple(self.state[p]["momentum_buffer"] for p in params),
                tuple(p.grad for p in params), sizes, group["lr"], group["momentum"], BLOCK=64,
            )  # fmt: skip
