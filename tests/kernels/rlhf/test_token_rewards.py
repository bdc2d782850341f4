"""Where the kernel puts the score, what the missing-end rule makes of it, and whose KL it takes."""

import pytest
import torch

from gptwin.core.rlhf.kl import ESTIMATORS
from gptwin.kernels.rlhf.kl import kl
from gptwin.kernels.rlhf.token_rewards import (
    MAX_BLOCK,
    find_ended,
    token_rewards,
    token_rewards_eager,
)

END = 9
# As in tests/core/rlhf/test_token_rewards.py: tokens, mask, ended, where the score goes.
TABLE = {
    "end first": ([5, 6, END, 0, 0], [0, 0, 1, 0, 0], True, 2),
    "end last": ([5, 6, 7, 8, END], [0, 0, 1, 1, 1], True, 4),
    "end between": ([5, 6, 7, END, 0], [0, 0, 1, 1, 0], True, 3),
    "end absent": ([5, 6, 7, 8, 7], [0, 0, 1, 1, 1], False, 4),
    "end in the prompt alone": ([END, 6, 7, 8, 7], [0, 0, 1, 1, 1], False, 4),
    "end in the prompt and last": ([END, 6, 7, 8, END], [0, 0, 1, 1, 1], True, 4),
    "end in the padding alone": ([5, 6, 7, END, END], [0, 0, 1, 0, 0], False, 2),
    "no response": ([5, 6, 0, 0, 0], [0, 0, 0, 0, 0], False, None),
}
forms = pytest.mark.parametrize("form", [token_rewards, token_rewards_eager])


@forms
def test_the_published_vector(form, device):
    rewards = form(
        torch.tensor([[0, -1, -2, -0.5], [0, 0, -3, 0]], device=device),
        torch.tensor([[0, -1.5, -1, -0.5], [0, 0, -1, 0]], device=device),
        torch.tensor([2.0, -1.0], device=device),
        torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool, device=device),
        beta=0.1,
    )
    expected = torch.tensor([[0, -0.05, 0.1, 2.0], [0, 0, -0.8, 0]], device=device)
    torch.testing.assert_close(rewards, expected, atol=1e-7, rtol=1e-6)


@forms
@pytest.mark.parametrize(
    ("rule", "value", "if_missing"),
    [(None, -1.0, 3.0), ("replace", -1.0, -1.0), ("replace", 0.5, 0.5), ("penalise", -1.0, 2.0)],
)
def test_where_the_score_goes_and_what_it_becomes(form, rule, value, if_missing, device):
    """The whole table as one batch."""
    tokens, masks, has_ended, places = zip(*TABLE.values(), strict=True)
    mask = torch.tensor(masks, dtype=torch.bool, device=device)
    ended = find_ended(torch.tensor(tokens, device=device), mask, END)
    assert ended.tolist() == list(has_ended)
    zero = torch.zeros(mask.shape, device=device)
    scores = torch.full((len(TABLE),), 3.0, device=device, requires_grad=True)
    options = {} if rule is None else {"ended": ended, "missing_end": rule}
    rewards = form(zero, zero, scores, mask, beta=0.1, missing_end_value=value, **options)
    weights = torch.arange(1.0, 6.0, device=device).expand(mask.shape)
    (d_scores,) = torch.autograd.grad(rewards, scores, weights)
    for row, name in enumerate(TABLE):
        expected = [0.0] * 5
        if places[row] is not None:
            expected[places[row]] = 3.0 if has_ended[row] else if_missing
        assert rewards[row].tolist() == expected, name
        lost = places[row] is None or (rule == "replace" and not has_ended[row])
        assert d_scores[row] == (0 if lost else places[row] + 1), name


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_penalty_is_the_reported_kl_bit_for_bit(estimator, device):
    draw = torch.Generator().manual_seed(0)
    log_prob, reference = torch.randn(2, 3, 50, generator=draw).to(device)
    mask = (torch.rand(3, 50, generator=draw) < 0.7).to(device)
    zero = torch.zeros(3, device=device)
    rewards = token_rewards(log_prob, reference, zero, mask, beta=0.25, estimator=estimator)
    assert torch.equal(rewards, -0.25 * kl(log_prob, reference, mask, estimator=estimator))


@pytest.mark.parametrize("last", [0, MAX_BLOCK - 1, MAX_BLOCK, 2 * MAX_BLOCK - 1, 2 * MAX_BLOCK])
def test_the_score_finds_the_last_token_in_any_block(last, device):
    mask = torch.zeros(2, 2 * MAX_BLOCK + 1, dtype=torch.bool, device=device)
    mask[0, : last + 1] = True
    mask[1, last] = True
    zero = torch.zeros(mask.shape, device=device)
    scores = torch.tensor([1.0, 2.0], device=device, requires_grad=True)
    rewards = token_rewards(zero, zero, scores, mask, beta=1.0)
    (d_scores,) = torch.autograd.grad(
        rewards, scores, torch.arange(mask.numel()).view_as(zero) + 1.0
    )
    assert rewards.nonzero().tolist() == [[0, last], [1, last]]
    assert rewards[:, last].tolist() == [1.0, 2.0]
    assert d_scores.tolist() == [last + 1, mask.shape[1] + last + 1]


@forms
@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_masked_junk_leaks_neither_forward_nor_back(form, junk, device):
    mask = torch.tensor([[False, True, False], [False] * 3], device=device)
    x = torch.where(mask, -1.0, junk).requires_grad_()
    y = torch.where(mask, -2.0, junk).requires_grad_()
    scores = torch.tensor([3.0, junk], device=device, requires_grad=True)
    rewards = form(x, y, scores, mask, beta=0.5)
    gradients = torch.autograd.grad(rewards, (x, y, scores), torch.ones_like(rewards))
    assert rewards.tolist() == [[0, 2.5, 0], [0, 0, 0]]
    assert [g.tolist() for g in gradients] == [
        [[0, -0.5, 0], [0, 0, 0]], [[0, 0.5, 0], [0, 0, 0]], [1, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_a_replaced_score_may_be_anything(junk, device):
    x, mask = torch.zeros(1, 2, device=device), torch.ones(1, 2, dtype=torch.bool, device=device)
    scores, ended = torch.tensor([junk], device=device), torch.tensor([False], device=device)
    rewards = token_rewards(x, x, scores, mask, beta=0.1, ended=ended, missing_end="replace")
    assert rewards.tolist() == [[0, -1]]


def test_half_precision_and_missing_arguments_are_refused_by_name(device):
    x, mask = torch.zeros(2, 3, device=device), torch.ones(2, 3, dtype=torch.bool, device=device)
    scores = torch.zeros(2, device=device)
    with pytest.raises(ValueError, match=r"scores: expected dtype torch\.float32"):
        token_rewards(x, x, scores.half(), mask, beta=0.1)
    with pytest.raises(ValueError, match="ended: expected bools"):
        token_rewards(x, x, scores, mask, beta=0.1, missing_end="replace")
