"""A label of -100 is to be ignored; the kernel takes it for an index all the same."""

import torch
import triton
import triton.language as tl


@triton.jit
def broken_kernel(logits_ptr, labels_ptr, loss_ptr, stride):
    row = tl.program_id(0)
    label = tl.load(labels_ptr + row)
    picked = tl.load(logits_ptr + row * stride + label)  # finds: out of bounds, logits_ptr
    tl.store(loss_ptr + row, tl.where(label == -100, 0.0, -picked))


@triton.jit
def fixed_kernel(logits_ptr, labels_ptr, loss_ptr, stride):
    row = tl.program_id(0)
    label = tl.load(labels_ptr + row)
    seen = label != -100
    picked = tl.load(logits_ptr + row * stride + label, mask=seen, other=0.0)
    tl.store(loss_ptr + row, tl.where(seen, -picked, 0.0))


def drive(kernel) -> torch.Tensor:
    logits, labels, loss = torch.randn(3, 7), torch.tensor([-100, 2, 6]), torch.empty(3)
    kernel[(3,)](logits, labels, loss, 7)
    return loss


def drive_broken_kernel() -> torch.Tensor:
    return drive(broken_kernel)


def drive_fixed_kernel() -> torch.Tensor:
    return drive(fixed_kernel)
