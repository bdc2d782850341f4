"""PPO on a tiny model: what must not change anything, what must, and that it learns."""

import math

import numpy as np
import pytest
import tiny
import torch
from ppo_stage import stage

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.common import launch
from gptwin.kernels.cpu.halves import Halves
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.data.batches import Windows
from gptwin.rl.stages.generation import generate
from gptwin.rl.stages.ppo import adapted, expect_first_ratio
from gptwin.rl.stages.ppo_statistics import of_rollout, over_minibatches
from gptwin.rl.stages.rollout import response_log_probs, response_values, side_by_side
from gptwin.rl.stages.scorer import Scorer

CPU = torch.device("cpu")


def text():
    return Windows(np.arange(200) % 250, time=16, batch_size=4, seed=0)


@pytest.mark.parametrize("shared", [False, True])
def test_it_learns(shared):
    trained = stage(shared_trunk=shared, episodes=224, inner_epochs=2)
    found = [trained.step(i) for i in range(14)]
    assert np.mean([f["score"] for f in found[-3:]]) > 1.3 * found[0]["score"]
    assert found[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert found[-1]["kl"] > 0.05


def test_a_rollouts_first_ratio_is_1_and_generations_log_probs_are_the_recomputed_ones():
    found = stage(minibatches=1).step(0)
    assert found["ratio_min"] == pytest.approx(1, abs=1e-5)
    assert found["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert found["approx_kl"] == pytest.approx(0, abs=1e-8)
    assert found["generation_difference"] < 1e-4


def acted(trained):
    """What an iteration's rollout left: answers, and what the models make of them."""
    answers = trained.roll_out(0)
    return answers, trained.judge(answers)


@pytest.mark.parametrize("shared", [False, True])
def test_what_generation_has_computed_is_what_a_second_pass_finds(shared):
    trained = stage(minibatches=1, shared_trunk=shared)
    said = trained.roll_out(0).batch.response
    trained.end = int(said[0, 2])  # so that some end early
    answers, judged = acted(trained)
    batch = answers.batch
    assert not batch.mask.all()
    assert (answers.values is None) == (not shared)
    with torch.no_grad():
        log_probs = response_log_probs(trained.policy, batch, 1.0)
        values = torch.where(batch.mask, response_values(trained.value, batch), 0.0)
    torch.testing.assert_close(judged.log_probs, log_probs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(judged.values, values, rtol=1e-5, atol=1e-5)


def test_half_precision_is_judged_by_the_pass_that_the_update_makes():
    trained = stage(shared_trunk=True)
    trained.crew.halves = Halves(in_halves=False)
    answers, drawn = acted(trained)
    assert drawn.difference is None
    torch.testing.assert_close(drawn.log_probs, answers.log_probs, rtol=0, atol=0)
    torch.testing.assert_close(drawn.values, answers.values, rtol=0, atol=0)
    trained.policy.compute_dtype = torch.bfloat16
    judged = trained.judge(answers)
    with torch.no_grad():
        log_probs = response_log_probs(trained.policy, answers.batch, 1.0)
        values = response_values(trained.value, answers.batch)
    torch.testing.assert_close(judged.log_probs, log_probs, rtol=0, atol=0)
    torch.testing.assert_close(judged.values, values, rtol=0, atol=0)
    assert judged.difference == (answers.log_probs - log_probs).abs().max().item() > 1e-3
    logged = of_rollout(judged, trained.credit(answers, judged), trained.end)
    assert logged["generation_difference"] == judged.difference


def first_minibatch(**settings):
    """The statistics of the first minibatch that a model of one layer sees, on Triton's kernels."""
    config = GPTConfig(tiny.template().tokenizer.vocab_size, 96, 1, 1, 16)
    policy = GPT(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
    few = {"batch": 4, "minibatches": 2, "episodes": 8, "max_response": 3, "shared_trunk": True}
    trained = stage(policy, **few | settings)
    answers, judged = acted(trained)
    assert torch.equal(judged.log_probs, answers.log_probs)
    trained.policy.train()
    found = trained.gradients(trained.credit(answers, judged), np.array([1, 3]))
    return found["ratio_min"], found["ratio_max"], found["approx_kl"]


def test_the_first_ratio_is_1_to_the_bit_where_rows_have_the_same_bits_in_every_batch():
    with launch.backend("triton"):
        with launch.batch_invariant():
            assert first_minibatch(temperature=0.7) == (1, 1, 0)
            with pytest.raises(RuntimeError, match="expected ratio 1"):
                expect_first_ratio({"ratio_min": 1 - 1e-7, "ratio_max": 1.0, "approx_kl": 0.0})
        low, high, _ = first_minibatch(temperature=0.7)
        assert low < 1 < high  # some 10⁻⁷ away: a step with a cache rounds otherwise than a pass


def test_a_ratio_that_is_not_1_stops_the_run():
    with pytest.raises(RuntimeError, match=r"expected ratio 1 .* ratios from 0\.9 to 1"):
        expect_first_ratio({"ratio_min": 0.9, "ratio_max": 1.0, "approx_kl": 0.0})
    good = {"ratio_min": 1.0, "ratio_max": 1.0, "approx_kl": 0.0}
    expect_first_ratio(good)
    for statistic in good:
        with pytest.raises(RuntimeError, match="expected ratio 1"):
            expect_first_ratio(good | {statistic: float("nan")})


def test_an_iterations_extremes_keep_a_nan():
    steps = [{"ratio_min": 0.9, "ratio_max": 1.1}, {"ratio_min": math.nan, "ratio_max": math.nan}]
    for found in (steps, steps[::-1]):
        extremes = over_minibatches(found)
        assert math.isnan(extremes["ratio_min"])
        assert math.isnan(extremes["ratio_max"])


def test_dropout_in_the_update_is_noticed():
    with pytest.raises(RuntimeError, match=r"likely cause: dropout in the update"):
        stage(tiny.gpt(dropout=0.3)).step(0)


def test_no_pretraining_term_is_plain_ppo_bit_for_bit():
    plain, zero = stage(), stage(ptx=0.0, pretraining=text())
    for i in range(2):
        plain.step(i)
        zero.step(i)
    for a, b in zip(plain.policy.parameters(), zero.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_pretraining_term_is_gamma_times_its_gradient():
    with_term = stage(ptx=2.0, pretraining=text(), minibatches=1)
    found = with_term.pretraining_gradients(0)
    gradients = [p.grad.clone() for p in with_term.policy.parameters()]
    with_term.policy.zero_grad()
    half = stage(with_term.policy, ptx=1.0, pretraining=text())
    assert half.pretraining_gradients(0) == found
    for parameter, gradient in zip(half.policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad * 2, gradient)


@pytest.mark.parametrize("settings", [{}, {"adaptive_kl": True, "shared_trunk": True}])
def test_resume_is_bit_for_bit(settings):
    whole = stage(**settings)
    for i in range(3):
        whole.step(i)
    first = stage(**settings)
    first.step(0)
    kept = first.state_dict()
    second = stage(tiny.gpt(seed=5), **settings)
    second.load_state_dict(kept)
    for i in (1, 2):
        second.step(i)
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for a, b in zip(whole.average, second.average, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert whole.beta == second.beta


def test_padding_on_either_side_changes_no_log_prob():
    policy, t = tiny.gpt().eval(), tiny.template()
    prompts = [p.ids for p in tiny.prompts(5)]
    generation = generate(policy, prompts, max_new_tokens=6, stop_tokens=(t.end,), seed=1)
    said = generation.token_lists()
    together = side_by_side(prompts, said, t.pad, CPU)
    with torch.no_grad():
        log_probs = response_log_probs(policy, together, 1.0)
        value = Scorer(policy, seed=0)
        values = response_values(value, together)
        for i, (prompt, response) in enumerate(zip(prompts, said, strict=True)):
            alone = side_by_side([prompt], [response], t.pad, CPU)
            n = len(response)
            for all_, one in (
                (log_probs, response_log_probs(policy, alone, 1.0)),
                (values, response_values(value, alone)),
            ):
                torch.testing.assert_close(all_[i, :n], one[0], rtol=1e-5, atol=1e-5)
    assert (log_probs <= 0).all()


def test_rows_drop_columns_that_are_padding_in_all_of_them():
    batch = side_by_side([[1, 2, 3], [4]], [[5], [6, 7]], pad=0, device=CPU)
    one = batch.rows(torch.tensor([1]))
    assert one.tokens.tolist() == [[4, 6, 7]]
    assert (one.n_prompt, one.key_start.tolist()) == (1, [0])
    assert one.mask.tolist() == [[True, True]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cuda_graphs": True}, r"^ppo\.cuda_graphs: expected false where there is no CUDA device"),
        ({"minibatches": 17}, r"^ppo\.batch: expected at least minibatches x ranks = 17 x 1"),
    ],
)
def test_what_cannot_be_done_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        stage(**settings)


def test_adaptive_beta_is_lm_human_preferences():
    assert adapted(0.15, 9.0, 6.0, 10_000, 512) == pytest.approx(0.151536, abs=1e-6)
    assert adapted(0.2, 5.7, 6.0, 10_000, 512) == pytest.approx(0.199488, abs=1e-6)
