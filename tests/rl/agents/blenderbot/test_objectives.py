"""What BlenderBot's family lowers, in PyTorch: the NumPy specification's numbers and gradients."""

import math

import numpy as np
import pytest
import torch

from gptwin.core.dialogue import cringe as core_cringe
from gptwin.core.dialogue import director as core_director
from gptwin.core.dialogue.factual_nucleus import nucleus as core_nucleus
from gptwin.core.rlhf.enumerable import all_sequences, log_probs_forward
from gptwin.rl.agents.blenderbot.director import guided_logits
from gptwin.rl.agents.blenderbot.nucleus import factual, nucleus
from gptwin.rl.agents.blenderbot.objectives import (
    OBJECTIVES,
    Rows,
    cringe,
    director_loss,
    language_loss,
    objective,
    unlikelihood,
    with_cringe,
    with_unlikelihood,
)

G, C = torch.tensor([2.0, 1, 0, -1]).double(), torch.tensor([-2.0, 0, 2, 1]).double()
# (targets, whether language, label)
LM, NEGATIVE, POSITIVE, BOTH = (
    ((0, 2), True, -1), ((0, 1), False, 0), ((2,), False, 1), ((2,), True, 1),
)  # fmt: skip


def rows(*examples):
    """Make rows, all of whose logits are G and C."""
    each = [(t, language, label, i) for i, (ts, language, label) in enumerate(examples) for t in ts]
    targets, language, labels, owner = (
        torch.tensor([one[k] for one in each], dtype=torch.bool if k == 1 else torch.long)
        for k in range(4)
    )
    g, c = (x.expand(len(each), 4).clone().requires_grad_() for x in (G, C))
    return Rows(g, c, targets, language, labels, owner, len(examples))


@pytest.mark.parametrize(
    ("examples", "options", "expected"),
    [
        ([LM], {}, 1.440190),
        ([NEGATIVE], {}, 0.205019),
        ([POSITIVE], {}, 0.063464),
        ([LM, NEGATIVE, POSITIVE], {}, 1.708673),
        ([NEGATIVE], {"neutral": 1.0}, 0.250168),
        ([POSITIVE], {"neutral": 1.0}, 0.096530),
        ([LM, NEGATIVE, POSITIVE], {"neutral": 1.0}, 1.786888),
        ([LM, NEGATIVE, POSITIVE], {"per": "token"}, 1.598024),
        ([BOTH], {}, 1.251827),
        ([((), True, -1)], {}, 0.0),  # nothing is trained
        ([LM, ((), False, 1)], {}, 1.440190),
        ([((), False, 0)], {"per": "token"}, 0.0),
    ],
)
def test_directors_loss(examples, options, expected):
    assert director_loss(rows(*examples), **options).item() == pytest.approx(expected, abs=1e-6)


def test_the_two_heads_learn_their_own():
    batch = rows(LM, NEGATIVE)
    director_loss(batch, neutral=1.0).backward()
    of_language, of_labels = batch.g.grad.abs().sum(-1), batch.c.grad.abs().sum(-1)
    assert (of_language > 0).tolist() == [True, True, False, False]
    assert (of_labels > 0).tolist() == [False, False, True, True]


@pytest.mark.parametrize(("gamma", "expected"), [(0.0, 0.488), (1.0, 0.095002), (3.0, 0.001857)])
def test_the_exact_world(gamma, expected):
    c = torch.full((31, 5), 2.0, dtype=torch.float64)
    c[:, 4] = -2
    z = guided_logits(torch.zeros(31, 5, dtype=torch.float64), c, gamma).numpy()
    sequences = all_sequences()
    p = np.exp(log_probs_forward(z, sequences)[0].sum(1))
    assert p[(sequences == 4).any(1)].sum() == pytest.approx(expected, abs=1e-6)
    assert core_director.guided_world(gamma).violation == pytest.approx(expected, abs=1e-6)


def test_unlikelihood_and_cringe():
    g, said = G.expand(2, 4), torch.tensor([0, 1])
    torch.testing.assert_close(
        unlikelihood(g, said), torch.tensor([1.032584, 0.270344]).double(), atol=1e-6, rtol=0
    )
    sure = unlikelihood(torch.tensor([[1e4, 0.0]]), torch.tensor([0]))
    assert sure.item() == pytest.approx(-math.log(core_cringe.LEAST), rel=1e-6)
    said = torch.tensor([0, 2])
    for k, expected in ((1, [1.313262, 0.126928]), (2, [1.532090, 0.177041])):
        found = cringe(g, said, k)
        torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"^k: expected 1 to 3"):
        cringe(g, said, 0)


def test_they_are_the_specification_on_random_logits():
    rng = np.random.default_rng(0)
    g, c, said = rng.normal(size=(50, 9)), rng.normal(size=(50, 9)), rng.integers(0, 9, 50)
    drawn = rng.random(50)
    as_tensors = [torch.from_numpy(x) for x in (g, said)]
    for k in (1, 3, 8):
        for which in (None, drawn):
            found = cringe(*as_tensors, k, drawn=None if which is None else torch.from_numpy(which))
            np.testing.assert_allclose(found, core_cringe.cringe(g, said, k, drawn=which))
    np.testing.assert_allclose(unlikelihood(*as_tensors), core_cringe.unlikelihood(g, said))
    guided = guided_logits(torch.from_numpy(g), torch.from_numpy(c), 1.5).log_softmax(-1)
    np.testing.assert_allclose(guided, core_director.spoken(g, c, 1.5))
    p = np.exp(guided.numpy())
    share = rng.uniform(0.2, 0.9, 50)
    found = nucleus(torch.from_numpy(p), torch.from_numpy(share)).numpy()
    np.testing.assert_array_equal(found, core_nucleus(p, share))


def test_what_a_batch_without_bad_tokens_costs():
    for loss in (with_unlikelihood, with_cringe):
        assert loss(rows(LM)).item() == pytest.approx(language_loss(rows(LM)).item())
        assert loss(rows(NEGATIVE)).item() > 0
        nothing = loss(rows(((), False, 0)))
        assert nothing.item() == 0


def test_the_language_that_is_learnt_includes_good_answers():
    good = language_loss(rows(POSITIVE)).item()
    assert good == pytest.approx(2.440190, abs=1e-5) and language_loss(rows(NEGATIVE)).item() == 0


def test_a_factual_nucleus_forbids_what_is_unlikely_late_in_a_sentence():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(3, 4)
    kept = factual(logits, torch.tensor([0, 5, 13])).isfinite().sum(-1)
    assert kept.tolist() == [3, 2, 1]  # p = .9, .59, .3


def test_objectives_are_chosen_by_name():
    assert objective("director", gamma=0.0)(rows(NEGATIVE)).item() == 0
    with pytest.raises(ValueError, match=f"^objective: expected one of {', '.join(OBJECTIVES)}"):
        objective("pace")
    with pytest.raises(ValueError, match=r"^per: expected"):
        director_loss(rows(LM), per="batch")
    with pytest.raises(ValueError, match=r"^objective: expected a classifier's logits"):
        director_loss(rows(NEGATIVE)._replace(c=None))
