"""Kernels that find their tensor in a table of addresses: right, and each with one fault.

A table is int64 [tensor, 4]: how many elements, the first block, and two addresses.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _row_of(table_ptr, n_tensors, n_bisections, block):
    low = block * 0
    high = low + n_tensors
    for _ in range(n_bisections):
        middle = (low + high) // 2
        reached = tl.load(table_ptr + middle * 4 + 1) <= block
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)
    return table_ptr + low * 4


@triton.jit
def copied_fixed(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    x = tl.load(tl.load(row + 2).to(tl.pointer_type(tl.float32)) + start + at, mask=at < left)
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, x, mask=at < left)


@triton.jit
def one_beyond_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at <= left)


@triton.jit
def wrong_length_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # The length is the first row's.
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(table_ptr) - start
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def next_row_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Of low + 1 nothing says that the block has reached it.
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors - 1, n_bisections, block) + 4
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def beyond_the_table_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    low = block * 0
    for _ in range(n_bisections):  # one row further as often as it likes
        low = tl.where(tl.load(table_ptr + low * 4 + 1) <= block, low + 1, low)
    address = tl.load(table_ptr + low * 4 + 3).to(tl.pointer_type(tl.float32))
    tl.store(address + tl.arange(0, BLOCK), 0.0, mask=tl.arange(0, BLOCK) < tl.load(table_ptr))


@triton.jit
def not_an_address_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    tl.store(tl.load(row + 1).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def moved_address_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # One more than an address is none that the table holds.
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    address = tl.load(row + 3) + 4
    tl.store(address.to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def twice_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Two programs have one block.
    block = (tl.program_id(0) // 2).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def shifted_in_place_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Both addresses of a row may be one tensor's: another program writes what this one reads.
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    x_at = tl.load(row + 2).to(tl.pointer_type(tl.float32)) + start + at + 1
    x = tl.load(x_at, mask=at + 1 < left)
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, x, mask=at + 1 < left)


@triton.jit
def first_block_unknown_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Right, but for a contract that does not say that the first tensor begins at block 0.
    block = tl.program_id(0).to(tl.int64)
    row = _row_of(table_ptr, n_tensors, n_bisections, block)
    start = (block - tl.load(row + 1)) * BLOCK
    at, left = tl.arange(0, BLOCK), tl.load(row) - start
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + start + at, 0.0, mask=at < left)


@triton.jit
def a_number_as_address_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    row, at = table_ptr + tl.program_id(0).to(tl.int64) * 4, tl.arange(0, BLOCK)
    tl.store(tl.load(row + 1).to(tl.pointer_type(tl.float32)) + at, 0.0, mask=at < tl.load(row))


@triton.jit
def two_addresses_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # The second one counts numbers of four bytes: it is no address here, and the first no index.
    row = table_ptr + tl.program_id(0).to(tl.int64) * 4
    first, second = tl.load(row + 2), tl.load(row + 3)
    at = first.to(tl.pointer_type(tl.float32)) + second
    tl.store(at, 0.0, mask=(first >= 0) & (first < tl.load(row)))


@triton.jit
def another_column_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Only of column 1 a number of a row is promised.
    row = table_ptr + tl.load(table_ptr + tl.program_id(0).to(tl.int64) * 4) * 4
    at, length = tl.arange(0, BLOCK), tl.load(row)
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + at, 0.0, mask=at < length)


@triton.jit
def another_row_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # Only of the first row it is promised that column 1 holds the number of a row.
    row = table_ptr + tl.load(table_ptr + tl.program_id(0).to(tl.int64) * 4 + 1) * 4
    at, length = tl.arange(0, BLOCK), tl.load(row)
    tl.store(tl.load(row + 3).to(tl.pointer_type(tl.float32)) + at, 0.0, mask=at < length)


@triton.jit
def two_widths_broken(table_ptr, n_tensors, n_bisections, BLOCK: tl.constexpr):
    # The first program's last numbers of four bytes lie where the second one's of two do.
    row = table_ptr + tl.program_id(0).to(tl.int64) * 4
    at = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    address, inside = tl.load(row + 3), at < tl.load(row)
    tl.store(address.to(tl.pointer_type(tl.float32)) + at, 0.0, mask=inside)
    tl.store(address.to(tl.pointer_type(tl.float16)) + at, 0.0, mask=inside)


KERNELS = (
    copied_fixed, one_beyond_broken, wrong_length_broken, next_row_broken, beyond_the_table_broken,
    not_an_address_broken, moved_address_broken, twice_broken, shifted_in_place_broken,
    first_block_unknown_broken, a_number_as_address_broken, two_addresses_broken,
    another_column_broken, another_row_broken, two_widths_broken,
)  # fmt: skip
TABLE = """
    table_ptr[n_tensors, 4]; 1 <= n_tensors; grid[n_blocks]; table_ptr.value[0, 1] == 0
    0 <= table_ptr.value[:, 0] <= 2**40; 0 <= table_ptr.value[:, 1] < n_blocks
    addresses(table_ptr.value[:, 2:4], table_ptr.value[:, 0])
"""
CONTRACTS = {kernel.fn.__name__: TABLE for kernel in KERNELS}
CONTRACTS["first_block_unknown_broken"] = TABLE.replace("table_ptr.value[0, 1] == 0", "")

BY_ROW = """
    table_ptr[n_tensors, 4]; 1 <= n_tensors; grid[n_tensors]; 0 <= table_ptr.value[:, 0] <= 2**40
    addresses(table_ptr.value[:, 2:4], table_ptr.value[:, 0])
"""
CONTRACTS["a_number_as_address_broken"] = CONTRACTS["two_addresses_broken"] = BY_ROW
CONTRACTS["another_column_broken"] = BY_ROW + "0 <= table_ptr.value[:, 1] < n_tensors"
CONTRACTS["another_row_broken"] = BY_ROW + "table_ptr.value[0, 1] == 0"
CONTRACTS["two_widths_broken"] = BY_ROW.replace("grid[n_tensors]", "grid[n_tensors, n_blocks]")


def drive_tables():
    table = torch.zeros(1, 4, dtype=torch.int64)
    for kernel in KERNELS:
        kernel[(1,)](table, 1, 0, BLOCK=16)
