"""Context distillation in PyTorch: as core says, on the right tokens, and it teaches."""

import copy

import numpy as np
import pytest
import tiny
import torch

from gptwin.core.dialogue import distillation as core
from gptwin.rl.agents.hh.distillation import (
    DistillationSettings,
    DistillationStage,
    context_distillation,
    divergence,
    prompted,
    response_logits,
    store,
    top_log_probs,
)
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.tasks import Exercise

RULE = "Never say the word moon."


def gradient_of(logits, ids, stored, d_kl):
    logits = torch.tensor(logits, requires_grad=True)
    kl = context_distillation(logits, torch.tensor(ids), torch.tensor(stored))
    kl.backward(torch.tensor(d_kl))
    return kl.detach().numpy(), logits.grad.numpy()


def test_the_known_value_and_gradient():
    teacher, student = ([0.5, 0.2, 0.1, 0.1, 0.06, 0.04], [0.3, 0.3, 0.2, 0.1, 0.05, 0.05])
    ids, stored = top_log_probs(torch.tensor(teacher, dtype=torch.float64).log(), 2)
    kl, gradient = gradient_of(np.log(student), ids.numpy(), stored.numpy(), np.float64(1))
    assert kl == pytest.approx(0.088015, abs=1e-6)
    np.testing.assert_allclose(gradient, [-0.2, 0.1, 0.05, 0.025, 0.0125, 0.0125], atol=1e-12)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_twins_agree(k):
    rng = np.random.default_rng(k)
    logits, of_teacher, d_kl = rng.normal(size=(5, 9)), rng.normal(size=(5, 9)), rng.normal(size=5)
    of_teacher[0, 3] = 60  # nothing is left for the rest
    logits[1, :6] = -np.inf  # cells that the student cannot say
    of_teacher[2, :] = 0  # ties
    ids, stored = core.top_log_probs(of_teacher, k)
    mine = top_log_probs(torch.tensor(of_teacher), k)
    assert mine[0].tolist() == ids.tolist()
    np.testing.assert_allclose(mine[1].numpy(), stored, atol=1e-12)
    kl, saved = core.context_distillation_forward(logits, ids, stored)
    expected = core.context_distillation_backward(saved, d_kl)
    found, gradient = gradient_of(logits, ids, stored, d_kl)
    np.testing.assert_allclose(found, kl, atol=1e-10)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_a_student_with_nothing_left_is_held_at_the_floor():
    logits, ids, stored = np.array([0, 0, -np.inf, -np.inf]), np.array([0, 1]), np.log([0.6, 0.3])
    kl, gradient = gradient_of(logits, ids, stored, np.float64(1))
    assert kl == pytest.approx(core.context_distillation(logits, ids, stored)) and kl > 6
    np.testing.assert_allclose(gradient, [0.45 - 0.6, 0.45 - 0.3, 0, 0], atol=1e-12)


def test_what_core_refuses_is_refused():
    with pytest.raises(ValueError, match="sum to 1 at most"):
        context_distillation(torch.zeros(6), torch.tensor([0, 1]), torch.tensor([2.0, 1.0]))


def test_the_prompt_stands_before_what_the_system_says():
    user = Message("user", "Say: moon")
    alone = Exercise("repeat", (user,), "moon")
    told = Exercise("repeat", (Message("system", "The code is x."), user), "moon")
    assert prompted(alone, RULE) == (Message("system", RULE), user)
    assert prompted(told, RULE) == (Message("system", f"{RULE} The code is x."), user)


@pytest.fixture(scope="module")
def stored():
    teacher, exercises = tiny.gpt(1).eval(), [p.exercise for p in tiny.prompts(12)]
    return (
        teacher,
        exercises,
        store(teacher, tiny.template(), RULE, exercises, 6, max_response=5, seed=0),
    )


def test_what_is_stored_is_what_the_prompted_teacher_thought(stored):
    teacher, exercises, found = stored
    template = tiny.template()
    for exercise, one in zip(exercises, found, strict=True):
        assert one.prompt == template.prompt(exercise.messages)
        assert one.ids.shape == (len(one.response), 6)
        long = template.prompt(prompted(exercise, RULE))
        logits, mask = response_logits(teacher, template, [long], [one.response])
        ids, log_probs = top_log_probs(logits, 6)
        assert mask.all() and ids[0].tolist() == one.ids.tolist()
        torch.testing.assert_close(log_probs[0], one.log_probs, atol=1e-4, rtol=1e-4)


def test_each_token_is_held_to_its_own_place(stored):
    teacher, _, found = stored
    together = divergence(teacher, tiny.template(), found)
    one_by_one = torch.cat([divergence(teacher, tiny.template(), [one]) for one in found])
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=1e-3)
    assert len(together) == sum(len(one.response) for one in found)


def test_a_student_comes_nearer(stored):
    teacher, _, found = stored
    settings = DistillationSettings(epochs=6, batch=6, lr=3e-3, warmup=0)
    stage = DistillationStage(copy.deepcopy(teacher), tiny.template(), found, found, settings, 0)
    before = stage.evaluate()["kl"]
    for index in range(stage.steps):
        stage.step(index)
    assert stage.steps == 12 and stage.evaluate()["kl"] < 0.6 * before
