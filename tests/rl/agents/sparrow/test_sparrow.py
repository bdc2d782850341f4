"""Sparrow in PyTorch: as the NumPy specification says, the rule model learns, the state is kept."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from gptwin.core.dialogue import sparrow as core
from gptwin.core.dialogue.sparrow import Running
from gptwin.rl.agents.sparrow import rerank as reranking
from gptwin.rl.agents.sparrow import reward as rewards
from gptwin.rl.agents.sparrow import rule_model
from gptwin.rl.agents.sparrow.rerank import candidates, rerank
from gptwin.rl.agents.sparrow.reward import SparrowReward
from gptwin.rl.agents.sparrow.rule_model import RuleLabel, RuleModel, RuleSettings, RuleStage
from gptwin.rl.configuration import PPOSettings
from gptwin.rl.data.batches import Shuffled
from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.sources import Prompt
from gptwin.rl.formats import checkpoint
from gptwin.rl.ranks.group import ALONE
from gptwin.rl.stages.ppo_stage import PPOStage
from gptwin.rl.stages.scorer import Scorer

RNG = np.random.default_rng(0)
PREFERENCES, KEPT = RNG.normal(size=5), RNG.random((5, 3))
APPLIES, LABELS = RNG.random((5, 3)) < 0.6, RNG.random((5, 3)) < 0.5


# --- the twins -----------------------------------------------------------------------------------


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_scores_of_candidates_are_the_specifications():
    for preferences, kept in (
        (PREFERENCES, KEPT),
        (PREFERENCES, KEPT * 0),
        (PREFERENCES, KEPT[:, :0]),
    ):
        found = reranking.preference_factor(torch.from_numpy(preferences))
        np.testing.assert_allclose(found, core.preference_factor(preferences), rtol=1e-12)
        for root in (True, False):
            found = reranking.rerank_scores(*tensors(preferences, kept), root=root)
            wanted = core.rerank_scores(preferences, kept, root=root)
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
            assert core.choose(found) == core.choose(wanted)


def test_the_reward_is_the_specifications():
    running, lengths, invalid = Running(9, 0.5, 4.0), np.arange(5.0), np.arange(5) % 2 == 0
    extra = {"rule_weight": 3.0, "length_weight": 0.1, "format_weight": 2.0}
    wanted = core.rl_reward(
        PREFERENCES, KEPT, APPLIES, running, lengths=lengths, invalid=invalid, **extra
    )
    lengths, invalid = tensors(lengths, invalid)
    found = rewards.rl_reward(
        *tensors(PREFERENCES, KEPT, APPLIES), running, lengths=lengths, invalid=invalid, **extra
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_rule_models_loss_and_gradient_are_the_specifications():
    logits = PREFERENCES[:, None] + KEPT
    logits[~APPLIES] = np.nan
    wanted, saved = core.rule_loss_forward(logits, LABELS, APPLIES)
    tensor = torch.from_numpy(logits).requires_grad_()
    found = rule_model.rule_loss(tensor, *tensors(LABELS, APPLIES))
    found.backward()
    assert found.item() == pytest.approx(wanted)
    np.testing.assert_allclose(tensor.grad, core.rule_loss_backward(saved, 1.0), rtol=1e-12)


# --- the vectors of the facts, in float32 --------------------------------------------------------


def test_the_known_values_in_float32():
    preferences = torch.tensor([2.0, 1.0, 0.0])
    kept = torch.tensor([[0.9, 0.2], [0.8, 0.9], [0.95, 0.95]])
    product = reranking.rerank_scores(preferences, kept, root=False).exp()
    rooted = reranking.rerank_scores(preferences, kept).exp()
    torch.testing.assert_close(product, torch.tensor([0.131591, 0.36, 0.242720]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        rooted, torch.tensor([0.310162, 0.424264, 0.255494]), atol=1e-6, rtol=0
    )
    running = Running(10, 0.5, 10 * 0.8**2)
    found = rewards.rl_reward(preferences, kept, torch.ones(3, 2, dtype=torch.bool), running)
    torch.testing.assert_close(found, torch.tensor([2.425, 1.475, 0.325]))


# --- the rule model ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Never:
    """A rule: never say a word; it applies where the user says anything but "free"."""

    word: str

    @property
    def text(self):
        return f"Never say the word {self.word}."

    def applies(self, messages):
        return messages[-1].content != "free"


ASKED = (Message("user", "Say: key"),)


def labelled(word, said):
    return RuleLabel(Never(word).text, ASKED, tiny.template().response(said), word == said)


def test_it_learns_which_word_a_rule_names():
    words = ("moon", "key")
    labels = [labelled(word, said) for word in words for said in words]
    settings = RuleSettings(epochs=25, batch=4, lr=1e-2, warmup=3)
    scorer = rule_model.train_rules(Scorer(tiny.gpt(), seed=0), labels, settings, tiny.template())
    model = RuleModel(scorer, tiny.template(), [Never(word) for word in words])
    kept, applies = model.kept([ASKED] * 2, [tiny.template().response(word) for word in words])
    assert applies.all()
    broken = 1 - kept  # row: what was said; column: the rule
    torch.testing.assert_close(broken, torch.eye(2), atol=0.1, rtol=0)
    assert not any(p.requires_grad for p in scorer.parameters())


def model_of(*words, seed=0):
    scorer = Scorer(tiny.gpt(seed), seed).requires_grad_(False).eval()
    return RuleModel(scorer, tiny.template(), [Never(word) for word in words])


def test_a_rule_that_does_not_apply_is_not_asked_about():
    free = (Message("user", "free"),)
    response = tiny.template().response("key")
    kept, applies = model_of("key", "moon").kept([free, ASKED], [response, response])
    assert applies.tolist() == [[False, False], [True, True]]
    assert (kept[0] == 1).all()
    assert (kept[1] < 1).all()
    nothing, none = model_of().kept([ASKED], [response])
    assert nothing.shape == none.shape == (1, 0)


def test_the_order_of_what_is_asked_changes_nothing():
    model = model_of()
    response = tiny.template().response
    asked = [(Never(w).text, ASKED * n, response(w)) for n, w in enumerate(("key", "moon"), 1)]
    found = model.violated([*asked, *asked[::-1]])
    torch.testing.assert_close(found, found.flip(0))
    assert model.violated([]).shape == (0,)


def test_of_a_long_dialogue_the_beginning_is_left_out_and_the_rule_stays():
    template, said = tiny.template(), [5, 6]
    whole = rule_model.row(template, "Be kind.", ASKED * 3, said, 1000)
    rule = template.conversation([Message("system", "Be kind.")]).tokens
    n_ctx = len(rule) + 4
    assert rule_model.row(template, "Be kind.", ASKED * 3, said, n_ctx) == rule + whole[-4:]
    assert whole[: len(rule)] == rule
    assert whole[-2:] == said


def test_labels_of_one_kind_are_refused_and_a_stage_goes_on_from_its_state():
    labels = [labelled("key", said) for said in ("key", "moon", "fish", "key")]
    with pytest.raises(ValueError, match="labels: expected broken and kept rules, got 2 of one"):
        RuleStage(Scorer(tiny.gpt(), 0), labels[1:3], [], RuleSettings(), tiny.template())
    first, second = (
        RuleStage(Scorer(tiny.gpt(s), s), labels, labels, RuleSettings(batch=2), tiny.template())
        for s in (0, 1)
    )
    first.step(0)
    second.load_state_dict(first.state_dict())
    assert first.step(1) == second.step(1)
    assert first.evaluate() == second.evaluate()


# --- reranking -----------------------------------------------------------------------------------


def reranked(texts, preferences, kept, *, ended=None, **options):
    template = tiny.template()
    ended = ended or [True] * len(texts)
    said = [template.response(t)[: None if e else -1] for t, e in zip(texts, ended, strict=True)]
    rules = [Never(str(i)).text for i in range(len(kept[0]))]
    applies = torch.ones(len(texts), len(rules), dtype=torch.bool)
    prompt = Prompt([1], ASKED)
    return rerank(
        prompt, said, torch.tensor(preferences), torch.tensor(kept), applies, rules, template,
        **options,
    )  # fmt: skip


def test_a_rule_decides_against_a_preference():
    found = reranked(["key", "no"], [1.0, 0.0], [[0.01], [0.99]])
    assert found.best.text == "no"
    assert found.candidates[0].violation == pytest.approx(0.99)
    assert reranked(["key", "no"], [1.0, 0.0], [[], []]).best.text == "key"


def test_an_answer_that_did_not_end_is_the_last_choice():
    assert reranked(["a", "b"], [9.0, 0.0], [[], []], ended=[False, True]).best.text == "b"
    cut = reranked(["a", "b"], [9.0, 0.0], [[], []], ended=[False, False])
    assert (cut.best.text, cut.best.ended) == ("a", False)


def test_duplicates_stay_and_the_first_of_them_is_chosen():
    found = reranked(["a", "a", "b"], [1.0, 1.0, 0.0], [[], [], []])
    assert found.place == 0
    assert found.candidates[0].factor == pytest.approx(1 / (1 + np.exp(-1 / 3)))


def test_one_candidate_is_plain_sampling():
    options = {"max_response": 4, "seed": 3}
    prompts = tiny.prompts(2)
    flat = lambda prompts, responses: torch.zeros(len(responses))  # noqa: E731
    policy = tiny.gpt().eval()
    found = candidates(policy, tiny.template(), flat, model_of("key"), prompts, 1, **options)
    from gptwin.rl.stages.generation import generate

    said = generate(
        policy, [p.ids for p in prompts], max_new_tokens=4, seed=3,
        stop_tokens=(tiny.template().end,),
    ).token_lists()  # fmt: skip
    assert [f.best.response for f in found] == said
    assert [f.best.factor for f in found] == [0.5, 0.5]
    assert candidates(policy, tiny.template(), flat, model_of("key"), [], 2, **options) == []
    with pytest.raises(ValueError, match="temperature: expected above 0"):
        candidates(
            policy, tiny.template(), flat, model_of(), prompts, 2, temperature=0.0, **options
        )


# --- the reward ----------------------------------------------------------------------------------


def likes_length(prompts, responses):
    return torch.tensor([float(len(response)) for response in responses])


def test_a_batch_is_seen_before_it_is_normalised_and_its_mean_is_0():
    end = tiny.template().end
    reward = SparrowReward(likes_length, None, end)
    prompts = tiny.prompts(2)
    torch.testing.assert_close(reward(prompts, [[5, end], [5, 5, 5, end]]), torch.tensor([-1.0, 1]))
    # No end: less by 1. Mean and spread are of all four: 2, 4, 6, 8.
    found = reward(prompts, [[5] * 6, [*[5] * 7, end]])
    torch.testing.assert_close(found, torch.tensor([1 / 5**0.5 - 1, 3 / 5**0.5]))


def ppo(score):
    settings = PPOSettings(
        batch=8, minibatches=2, episodes=32, max_response=4, lr=1e-3, value_lr=1e-3, ptx=0.0,
        missing_end="keep",
    )  # fmt: skip
    t = tiny.template()
    return PPOStage(
        tiny.gpt(), Scorer(tiny.gpt(), seed=0), score, Shuffled(tiny.prompts(16), 8, 0), settings,
        pad=t.pad, end=t.end, seed=0, group=ALONE,
    )  # fmt: skip


def test_what_the_normaliser_has_seen_is_in_ppos_checkpoint(tmp_path):
    first, second = (
        ppo(SparrowReward(likes_length, model_of("key"), tiny.template().end)) for _ in range(2)
    )
    first.step(0)
    kept = checkpoint.save(tmp_path, 1, first.state_dict(), keep_last=1)
    _, state = checkpoint.load(kept, second.state_dict())
    second.load_state_dict(state)
    assert second.score.running == first.score.running
    assert second.score.running.n == 8
    after = second.step(1)
    assert after == first.step(1)
    assert "score" in state
    state["score"] = {}  # a checkpoint of a reward that remembers nothing
    second.load_state_dict(state)
