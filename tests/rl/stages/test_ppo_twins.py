"""core/rlhf/ppo.py and rl/stages/ppo.py are twins: one iteration on the same answers, compared.

The world is the enumerable one (core/rlhf/enumerable.py). Its tables become a model whose hidden
state is the prefix, one-hot, so that its output matrix is the table of logits and the head's weight
the table of values.
"""

import numpy as np
import pytest
import torch

from gptwin.core.model.presets import GPTConfig
from gptwin.core.optimizer.ema import ema
from gptwin.core.rlhf.enumerable import (
    LENGTH,
    N_PREFIXES,
    N_TOKENS,
    make_world,
    ppo_of,
    prefix_rows,
)
from gptwin.core.rlhf.ppo import Experience
from gptwin.rl.configuration import PPOSettings
from gptwin.rl.data.sources import Prompt
from gptwin.rl.ranks.group import Group
from gptwin.rl.stages.generation import Generation
from gptwin.rl.stages.ppo_stage import PPOStage
from gptwin.rl.stages.rollout import response_log_probs, side_by_side
from gptwin.rl.stages.scorer import Scorer

BATCH, NEVER = 48, N_TOKENS  # no token ends an answer
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


class Table(torch.nn.Module):
    """A table of logits, [prefix, token], as a GPT that is asked after one token of a prompt."""

    config = GPTConfig(N_TOKENS, LENGTH + 1, 1, 1, N_PREFIXES)
    dtype = torch.float64

    def __init__(self, logits):
        super().__init__()
        self.wte = torch.nn.Linear(N_PREFIXES, N_TOKENS, bias=False, dtype=torch.float64)
        self.wte.weight.data.copy_(torch.from_numpy(logits.T.copy()))

    def forward(self, tokens, *, key_start=None, states_from=0):
        assert key_start is None  # prompts are one token each
        rows = prefix_rows(np.pad(tokens[:, 1:].numpy(), ((0, 0), (0, 1))))
        states = torch.nn.functional.one_hot(torch.from_numpy(rows), N_PREFIXES)
        return states[:, states_from:].double()

    def output_matrix(self):
        return self.wte.weight.T


class Values(Scorer):
    """The table of values as the head's weight, in float64."""

    def __init__(self, trunk):
        super().__init__(trunk)
        self.double()

    def head(self, hidden):
        return hidden @ self.weight


@pytest.fixture
def twins():
    """The two, and the answers that both learn from; the policy is not the reference any more."""
    world = make_world(3)
    ours = ppo_of(world, batch=BATCH, minibatches=1, epochs=1, lam=0.9, gamma=0.97)
    rng = np.random.default_rng(0)
    ours.policy.parameter += rng.normal(0, 0.3, ours.policy.parameter.shape)
    ours.critic.parameter += rng.normal(0, 0.3, N_PREFIXES)
    answers = ours.roll_out(rng)
    policy = Table(ours.policy.parameter)
    value = Values(Table(ours.policy.parameter))
    value.weight.data.copy_(torch.from_numpy(ours.critic.parameter))
    settings = PPOSettings(
        batch=BATCH, minibatches=1, episodes=BATCH, max_response=LENGTH, ptx=0.0, lr=1e-2,
        value_lr=1e-3, lr_warmup=0, missing_end="keep", kl_coefficient=world.beta,
        gamma=ours.gamma, gae_lambda=ours.lam, clip=1e9, ema=ours.decay,
    )  # fmt: skip
    prompts = [Prompt([0], ())] * BATCH

    class Same:
        def batch(self, index):
            return prompts

    theirs = PPOStage(
        policy, value, lambda _, said: torch.from_numpy(world.score(np.array(said))), Same(),
        settings, pad=0, end=NEVER, seed=0, group=Group(),
    )  # fmt: skip
    theirs.reference.wte.weight.data.copy_(torch.from_numpy(world.reference_logits.T.copy()))
    said = torch.from_numpy(answers.tokens)

    def repeat(model, asked, **_):
        batch = side_by_side(asked, said.tolist(), 0, torch.device("cpu"))
        log_probs = response_log_probs(model, batch, 1.0)
        return Generation(said, log_probs, torch.full((BATCH,), LENGTH), None)

    theirs.generate = repeat
    return ours, theirs, answers


def test_they_judge_and_credit_alike(twins):
    ours, theirs, answers = twins
    judged = ours.judge(answers)
    expected = ours.credit(answers, judged)
    said = theirs.roll_out(0)
    found = theirs.judge(said)
    experience = theirs.credit(said, found)
    np.testing.assert_array_equal(said.batch.response, answers.tokens)
    np.testing.assert_allclose(found.log_probs, answers.log_probs, **CLOSE)
    np.testing.assert_allclose(found.reference, judged.reference_log_probs, **CLOSE)
    np.testing.assert_allclose(found.values, judged.values, **CLOSE)
    np.testing.assert_allclose(found.scores, judged.scores, **CLOSE)
    for name in ("log_probs", "rewards", "values", "advantages", "returns"):
        mine, its = getattr(expected, name), getattr(experience, name)
        np.testing.assert_allclose(its, mine, **CLOSE, err_msg=name)
    assert np.abs(found.log_probs.numpy() - found.reference.numpy()).max() > 0.1


def test_they_have_the_same_loss_and_the_same_first_gradient(twins):
    ours, theirs, answers = twins
    experience = ours.credit(answers, ours.judge(answers))
    said = theirs.roll_out(0)
    same = theirs.credit(said, theirs.judge(said))
    for rows in (np.arange(BATCH), np.arange(5, 20)):
        results, d_logits, d_values = ours.gradients(Experience(*(x[rows] for x in experience)))
        found = theirs.gradients(same, rows)
        for name in set(found) - {"entropy"}:  # the reference has no bonus for it, nor computes it
            assert found[name] == pytest.approx(float(getattr(results, name)), rel=1e-6, abs=1e-6)
        np.testing.assert_allclose(theirs.policy.wte.weight.grad.T, d_logits, **CLOSE)
        np.testing.assert_allclose(theirs.value.weight.grad, d_values, **CLOSE)
        assert np.abs(d_logits).max() > 1e-3
        theirs.policy.zero_grad()
        theirs.value.zero_grad()


def test_they_average_alike(twins):
    ours, theirs, _ = twins
    theirs_began = theirs.average[0].T.clone().numpy()
    theirs.step(0)
    before, after = theirs_began, theirs.policy.wte.weight.detach().numpy().T
    np.testing.assert_allclose(theirs.average[0].T, ema([before], [after], ours.decay)[0], **CLOSE)
