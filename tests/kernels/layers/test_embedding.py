"""What the embedding kernels promise beyond agreeing with the reference."""

import numpy as np
import pytest
import torch

from gptwin.core.layers.embedding import scatter_add as core_scatter_add
from gptwin.kernels.common import launch
from gptwin.kernels.layers.embedding import (
    CHUNK,
    embedding,
    embedding_forward,
    scatter_add,
    sort_ids,
)


@pytest.fixture
def tables(device):
    torch.manual_seed(0)
    return torch.randn(10, 24, device=device), torch.randn(8, 24, device=device)


def test_ids_out_of_range_are_refused_on_the_cpu(tables):
    token_table, position_table = (table.cpu() for table in tables)
    for wrong in (-1, 10, -100, 2**40):
        with pytest.raises(ValueError, match=rf"tokens: expected 0 to 9, got {wrong} at \(0, 1\)"):
            embedding(torch.tensor([[0, wrong]]), token_table, position_table)
    with pytest.raises(ValueError, match="positions: expected 0 to 7, got 8"):
        tokens, positions = torch.tensor([[0]]), torch.tensor([[8]])
        embedding(tokens, token_table, position_table, positions=positions)


def test_ids_out_of_range_become_nan_and_are_never_read(tables, device):
    """As on a GPU, where nobody looks at the ids first; the interpreter checks every address."""
    tokens = torch.tensor([[3, -1, 10, 2**40, 9]], device=device)
    y = embedding_forward(tokens, *tables, None)
    assert y.isnan().all(dim=2).tolist() == [[False, True, True, True, False]]
    positions = torch.tensor([[0, 8, -1, 7, 7]], device=device)
    y = embedding_forward(tokens.clamp(0, 9), *tables, positions)
    assert y.isnan().all(dim=2).tolist() == [[False, True, True, False, False]]
    assert not y[0, [0, 3, 4]].isnan().any()


def test_ids_out_of_range_add_to_no_gradient(device):
    ids = torch.tensor([[-1, 3, 10, -100, 0, 2**40, 3]], device=device)
    d_y = torch.randn(1, 7, 5, device=device)
    sums = scatter_add(d_y, *sort_ids(ids), 10)
    torch.testing.assert_close(sums[3], d_y[0, 1] + d_y[0, 6])
    torch.testing.assert_close(sums[0], d_y[0, 4])
    assert not sums[[1, 2, 4, 5, 6, 7, 8, 9]].any()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_ids_do_not_overflow(dtype, device):
    """70 columns: 255 times 70 is beyond 16 bits."""
    table = torch.randn(256, 70, device=device)
    tokens = torch.tensor([[255, 0, 127]], device=device).to(dtype)
    y = embedding(tokens, table, torch.zeros(3, 70, device=device))
    assert torch.equal(y[0], table[tokens[0].long()])


@pytest.mark.parametrize("n", [CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7])
@pytest.mark.parametrize("first", [0, 1, CHUNK - 1, CHUNK])
def test_a_run_of_any_length_anywhere_is_summed_once(n, first, device):
    """Integers: every sum is exact, so that one source too many or too few shows."""
    ids = torch.cat([torch.zeros(first), torch.ones(n), torch.full((3,), 2)]).long()[None]
    d_y = torch.arange(1, ids.numel() + 1).float()[None, :, None].expand(-1, -1, 2)
    sums = scatter_add(d_y.to(device), *sort_ids(ids.to(device)), 4)
    expected = core_scatter_add(ids[0].numpy(), d_y[0].numpy(), 4)
    np.testing.assert_array_equal(sums.cpu().numpy(), expected)


def test_two_runs_are_bit_identical(device):
    tokens = torch.randint(0, 4, (3, 50), device=device)
    d_y = torch.randn(3, 50, 33, device=device)
    first, second = (scatter_add(d_y, *sort_ids(tokens), 6) for _ in range(2))
    assert torch.equal(first, second)


def test_a_hot_token_is_summed_in_chunks(device):
    """One id everywhere: its row's program takes whole chunks, each summed by its own program."""
    tokens = torch.zeros(1, 40 * CHUNK, dtype=torch.long, device=device)
    table = torch.zeros(2, 4, device=device, requires_grad=True)
    positions = torch.zeros_like(tokens)
    y = embedding(tokens, table, torch.zeros(1, 4, device=device), positions=positions)
    with launch.recording() as log:
        y.sum().backward()
    (chunks,) = [entry for entry in log if entry.kernel == "embedding_chunk_kernel"]
    assert chunks.tensors["chunk_sums_ptr"].shape == (40, 4)
    assert table.grad.tolist() == [[40.0 * CHUNK] * 4, [0.0] * 4]


def test_a_table_that_needs_no_gradient_costs_none(tables, device):
    token_table, position_table = tables
    tokens = torch.tensor([[1, 2]], device=device)
    with launch.recording() as log:
        embedding(tokens, token_table.requires_grad_(), position_table).sum().backward()
    assert position_table.grad is None
    assert [entry.kernel for entry in log].count("embedding_backward_kernel") == 1


def test_no_tokens_give_zero_gradients(tables, device):
    leaves = [table.requires_grad_() for table in tables]
    y = embedding(torch.zeros(2, 0, dtype=torch.long, device=device), *leaves)
    gradients = torch.autograd.grad(y, leaves, torch.empty_like(y))
    assert y.shape == (2, 0, 24) and not any(g.any() for g in gradients)


def test_tables_of_two_dtypes_are_refused(tables):
    tokens = torch.tensor([[0]])
    with pytest.raises(ValueError, match=r"position_table: expected dtype torch\.float32"):
        embedding(tokens, tables[0], tables[1].half())
