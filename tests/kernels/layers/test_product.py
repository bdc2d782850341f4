"""What products promise beyond what the operations that use them are tested for."""

import pytest
import torch

from gptwin.kernels.layers.product import readable


@pytest.mark.parametrize(
    ("shape", "dtype", "copied"),
    [
        ((32, 75), torch.bfloat16, True),  # a head of odd vocabulary that is not tied
        ((32, 75), torch.float32, False),  # of which 4 bytes are copied at a time
        ((32, 80), torch.bfloat16, False),
        ((33, 75), torch.bfloat16, False),  # its columns lie no better
    ],
)
def test_rows_of_odd_length_are_laid_out_anew(shape, dtype, copied):
    matrix = torch.randn(*shape).to(dtype)
    tied = matrix.T.contiguous().T
    assert readable(tied) is tied
    found = readable(matrix)
    assert torch.equal(found, matrix)
    assert (found is not matrix) == copied and found.is_contiguous() == (not copied)
