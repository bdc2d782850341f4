"""Pretraining and fine-tuning: what the gradient may not depend on, and that they learn."""

import dataclasses
import math

import pytest
import tiny
import torch

from gptwin.rl.configuration import SFTSettings
from gptwin.rl.data.batches import IGNORED, Shuffled, collate
from gptwin.rl.ranks.group import Group
from gptwin.rl.stages.language_model import LanguageModelStage


def stage(model, examples, batch=8, steps=30, **settings):
    settings = SFTSettings(**{"lr": 1e-2, "dropout": 0.0, "batch": batch} | settings)
    source = Shuffled(examples, batch, seed=0)
    return LanguageModelStage(
        "sft", model, source, examples[:8], settings, steps, tiny.template().pad, Group()
    )


def test_it_learns():
    examples = tiny.conversations(16)
    trained = stage(tiny.gpt(), examples)
    before = trained.evaluate()
    for i in range(30):
        statistics = trained.step(i)
    after = trained.evaluate()
    assert after["loss"] < 0.5 * before["loss"]
    assert after["perplexity"] == pytest.approx(math.exp(after["loss"]))
    assert statistics["tokens"] > 0 < statistics["gradient_norm"]


def test_a_diverged_model_has_an_infinite_perplexity():
    """Beyond e^709 Python's own exponential raises; the run stops and names the statistic."""
    model = tiny.gpt()
    with torch.no_grad():
        model.ln_f.weight.fill_(1e4)
    found = stage(model, tiny.conversations(8)).evaluate()
    assert math.isfinite(found["loss"])
    assert found["perplexity"] == math.inf


def test_accumulation_is_the_full_batch():
    examples = tiny.conversations(8)
    whole, parts = tiny.gpt(), tiny.gpt()
    found = [stage(whole, examples).step(0), stage(parts, examples, accumulate=3).step(0)]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)
    assert found[0]["gradient_norm"] == pytest.approx(found[1]["gradient_norm"], rel=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)  # Adam's first step is the sign


def test_bfloat16_computes_and_float32_remembers():
    examples = tiny.conversations(16)
    exact, rounded = tiny.gpt(), tiny.gpt()
    rounded.compute_dtype = torch.bfloat16
    assert rounded(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
    stages = [stage(model, examples) for model in (exact, rounded)]
    first, other = (trained.step(0) for trained in stages)
    assert first["loss"] != other["loss"] == pytest.approx(first["loss"], rel=0.01)
    assert other["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=0.05)
    for i in range(1, 30):
        stages[1].step(i)
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    assert stages[1].evaluate()["loss"] < 0.5 * first["loss"]


def test_a_compiled_model_trains_alike():
    torch.compiler.reset()
    examples = tiny.conversations(16)
    plain, compiled = tiny.gpt(), tiny.gpt()
    compiled.compile(backend="aot_eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    found = [[trained.step(i)["loss"] for i in range(2)]
             for trained in (stage(plain, examples), stage(compiled, examples))]  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    torch.compiler.reset()


def test_the_loss_is_the_mean_over_tokens_not_over_conversations():
    examples = tiny.conversations(8)
    model = tiny.gpt()
    tokens, targets = collate(examples, tiny.template().pad)
    logits = model.logits(model(tokens)).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)
    assert stage(model, examples, accumulate=4).step(0)["loss"] == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_only_the_assistants_words_matter():
    example = tiny.conversations(1)[0]
    deaf = dataclasses.replace(example, trained=[False] * len(example.trained))
    model = tiny.gpt()
    found = stage(model, [deaf] * 8).step(0)
    assert found["loss"] == found["gradient_norm"] == 0


@pytest.mark.parametrize(("batch", "accumulate", "most"), [(6, 3, 2), (100, 1, 32)])
def test_an_evaluation_takes_no_more_at_once_than_training(batch, accumulate, most, monkeypatch):
    model, examples = tiny.gpt(), tiny.conversations(40)
    settings = SFTSettings(batch=batch, accumulate=accumulate)
    made = LanguageModelStage(
        "sft", model, None, examples, settings, 1, tiny.template().pad, Group()
    )
    rows, loss = [], model.loss
    monkeypatch.setattr(
        model, "loss", lambda tokens, *a, **o: rows.append(len(tokens)) or loss(tokens, *a, **o)
    )
    made.evaluate()
    assert sum(rows) == 40
    assert max(rows) <= most
