"""The CPU's own mean cross-entropy is the sum over what counts, by how many count."""

import pytest
import torch

from gptwin.kernels.cpu import loss as eager_loss
from gptwin.kernels.cpu.loss import mean_cross_entropy
from gptwin.kernels.language import token_scores_cpu

VOCAB = 11
TARGETS = {
    "all count": [0, 3, 10, 3, 7],
    "some are ignored": [0, -100, 10, 3, -100],
    "none counts": [-100, -100, -100, -100, -100],
    "there are none": [],
}


def both_directions(function, n):
    g = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
        for shape in ((n, 4), (4, VOCAB))
    )
    loss = function(hidden, weight)
    return loss, *torch.autograd.grad(loss, (hidden, weight))


@pytest.mark.parametrize("strip", [2 * VOCAB, 2**20])  # logits in several strips, or in one
@pytest.mark.parametrize("ignore_index", [-100, 3])
@pytest.mark.parametrize("which", TARGETS)
def test_it_is_the_sum_by_how_many_count(which, ignore_index, strip, monkeypatch):
    monkeypatch.setattr(token_scores_cpu, "STRIP", strip)
    monkeypatch.setattr(eager_loss, "IN_CACHE", strip)
    targets = torch.tensor(TARGETS[which], dtype=torch.int64)
    if ignore_index != -100:
        targets = targets.where(targets != -100, ignore_index)
    n_counted = int((targets != ignore_index).sum())

    def plain(hidden, weight):
        total = torch.nn.functional.cross_entropy(
            hidden @ weight, targets, ignore_index=ignore_index, reduction="sum"
        )
        return total / max(n_counted, 1)

    def own(hidden, weight):
        return mean_cross_entropy(hidden, weight, targets, ignore_index=ignore_index)

    expected = both_directions(plain, len(targets))
    for actual, e in zip(both_directions(own, len(targets)), expected, strict=True):
        torch.testing.assert_close(actual, e, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("wrong", [VOCAB, -1])
def test_a_target_out_of_range_is_named(wrong):
    targets = torch.tensor([1, wrong, 2])
    with pytest.raises(ValueError, match=f"targets: expected 0 to 10 where unmasked, got {wrong} "):
        mean_cross_entropy(torch.zeros(3, 4), torch.zeros(4, VOCAB), targets)
