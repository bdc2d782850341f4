"""Traps as in `traps.py`, and harmless siblings, for what is said of products and of who writes."""

import torch
import triton
import triton.language as tl


@triton.jit
def below_the_square_fixed(y_ptr, n, BLOCK: tl.constexpr):
    p, q = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    tl.atomic_add(y_ptr + p * q, 1.0, mask=(p < n) & (q < n))


@triton.jit
def below_the_square_broken(y_ptr, n, BLOCK: tl.constexpr):
    p, q = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    tl.atomic_add(y_ptr + p * q, 1.0, mask=(p <= n) & (q <= n))


@triton.jit
def heads_apart_fixed(y_ptr, group, n, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    head = tl.program_id(0).to(tl.int64) * group + row // n
    tl.store(y_ptr + head * n + row % n, 0.0, mask=row < group * n)


@triton.jit
def heads_apart_broken(y_ptr, group, n, BLOCK: tl.constexpr):
    # The last head of one program is the first of the next one.
    row = tl.arange(0, BLOCK)
    head = tl.program_id(0).to(tl.int64) * group + row // n
    tl.store(y_ptr + head * n + row % n, 0.0, mask=row < group * n + n)


@triton.jit
def either_way_fixed(flags_ptr, y_ptr, n, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    if tl.load(flags_ptr + program) > 0:
        tl.store(y_ptr + program, 1.0)
    else:
        tl.store(y_ptr + program, 2.0)


@triton.jit
def either_way_broken(flags_ptr, y_ptr, n, BLOCK: tl.constexpr):
    # The other program's flag is another one.
    program = tl.program_id(0).to(tl.int64)
    if tl.load(flags_ptr + program) > 0:
        tl.store(y_ptr + program, 1.0)
    else:
        tl.store(y_ptr + n - 1 - program, 2.0)


@triton.jit
def a_multiple_fixed(y_ptr, n_heads, n_groups, BLOCK: tl.constexpr):
    tl.store(y_ptr + n_heads // 2 - n_groups, 0.0)


@triton.jit
def a_multiple_broken(y_ptr, n_heads, n_groups, BLOCK: tl.constexpr):
    tl.store(y_ptr + n_heads // 2 - n_groups, 0.0)


SQUARE = "y_ptr[n * n]; grid[n + 1, n + 1]; n <= 2**10; partly(y_ptr)"
HEADS = "y_ptr[n_programs * group + 1, n]; grid[n_programs]; group <= 8; 1 <= n <= 8; partly(y_ptr)"
FLAGS = "flags_ptr[n]; y_ptr[n]; grid[n]"
CONTRACTS = {
    "below_the_square_fixed": SQUARE,
    "below_the_square_broken": SQUARE,
    "heads_apart_fixed": HEADS,
    "heads_apart_broken": HEADS,
    "either_way_fixed": FLAGS,
    "either_way_broken": FLAGS,
    "a_multiple_fixed": "y_ptr[1]; n_heads == 2 * n_groups; 0 <= n_groups <= 2**20; partly(y_ptr)",
    "a_multiple_broken": "y_ptr[1]; n_heads <= 2 * n_groups; 0 <= n_groups <= 2**20; partly(y_ptr)",
}


def drive_products():
    y, flags = torch.empty(16), torch.zeros(16, dtype=torch.int32)
    for kernel in (below_the_square_fixed, below_the_square_broken):
        kernel[(5, 5)](y, 4, BLOCK=16)
    for kernel in (heads_apart_fixed, heads_apart_broken, a_multiple_fixed, a_multiple_broken):
        kernel[(1,)](y, 2, 1, BLOCK=16)
    for kernel in (either_way_fixed, either_way_broken):
        kernel[(16,)](flags, y, 16, BLOCK=16)
    return y
