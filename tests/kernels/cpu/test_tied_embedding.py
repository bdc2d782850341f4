"""A table that is handed on for both uses is differentiated as a table that is not."""

import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.kernels.cpu import tied_embedding


@pytest.mark.parametrize("head", [False, True], ids=["unused", "used"])
def test_second_derivative_is_that_of_a_plain_table(head, monkeypatch):
    gradients = []
    for small in (0, 2**18):
        monkeypatch.setattr(tied_embedding, "SMALL", small)
        wte, wpe = (
            torch.linspace(-1, 2, 15, dtype=torch.float64).view(5, 3).requires_grad_()
            for _ in range(2)
        )
        with launch.backend("eager"):
            x, table = tied_embedding.tied_embedding(torch.tensor([[1, 2, 1]]), wte, wpe)
        loss = x.pow(3).sum()
        if head:
            loss = loss + table.pow(3).sum()
        (d_wte,) = torch.autograd.grad(loss, wte, create_graph=True)
        gradients += torch.autograd.grad(loss + d_wte.square().sum(), wte)
    torch.testing.assert_close(*gradients)
