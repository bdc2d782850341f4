"""The ladder: three small kernels that compute what `attention` means, and read less each time."""

import numpy as np
import pytest
import torch

from gptwin.core.attention.attention import attention
from gptwin.kernels.attention.ladder import BLOCK, ladder


def draw(n_head, time, d, device):
    generator = torch.Generator().manual_seed(time)
    # Large scores, so that a maximum that is lost or a sum that is not rescaled shows.
    return [3 * torch.randn(n_head, time, d, generator=generator).to(device) for _ in range(3)]


@pytest.mark.parametrize("rung", [1, 2, 3])
@pytest.mark.parametrize("time", [1, BLOCK, 3 * BLOCK + 5])
def test_a_rung_computes_attention(rung, time, device):
    inputs = draw(2, time, 16, device)
    reference, _ = attention(*(x[None].double().cpu().numpy() for x in inputs), causal=True)
    np.testing.assert_allclose(ladder(rung, *inputs).cpu(), reference[0], rtol=1e-5, atol=1e-5)


def test_the_last_rung_never_reads_a_tile_that_nobody_sees(device):
    """NaN behind the diagonal's tile reaches rung 2, which multiplies it by 0, and not rung 3."""
    query, key, value = draw(1, 3 * BLOCK, 16, device)
    value[:, 2 * BLOCK :] = float("nan")
    assert ladder(2, query, key, value)[:, :BLOCK].isnan().all()
    assert ladder(3, query, key, value)[:, : 2 * BLOCK].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: (4, q, q, q), "rung: expected 1, 2 or 3, got 4"),
        (lambda q: (1, q.half(), q, q), "query: expected contiguous float32"),
        (lambda q: (1, q, q[:, :4].contiguous(), q), "key: expected query's shape"),
        (lambda q: (1, *[q[:, :, :8].contiguous()] * 3), "query: expected a power of two"),
    ],
)
def test_what_it_does_not_take_is_named(change, message, device):
    with pytest.raises(ValueError, match=message):
        ladder(*change(torch.zeros(1, 8, 16, device=device)))
