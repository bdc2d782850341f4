"""GPT-1's fine-tuning: forms, head, objective beside NumPy's, transfer, and that it learns."""

import dataclasses
import itertools

import numpy as np
import pytest
import tiny
import torch

from gptwin.core.language.finetuning_loss import finetuning_loss as reference
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.data.batches import IGNORED, Windows
from gptwin.rl.evaluation.log_probs import Request, continuation_log_probs
from gptwin.rl.finetuning.classifier import Classifier, collate, finetuning_loss
from gptwin.rl.finetuning.fine_tune import (
    FineTuneSettings,
    fine_tune,
    from_scratch,
    predictions,
    with_blocks,
    with_special_tokens,
)
from gptwin.rl.finetuning.forms import (
    SPECIAL_TOKENS,
    Classification,
    Encoder,
    Entailment,
    MultipleChoice,
    Similarity,
)
from gptwin.rl.finetuning.masked import Masked, masked_loss
from gptwin.rl.training.schedule import linear


@pytest.fixture(scope="module")
def model_and_encoder():
    model, tokenizer = with_special_tokens(tiny.gpt(), tiny.template().tokenizer)
    return model, Encoder(tokenizer, model.config.n_ctx)


def shown(encoder, example):
    return [encoder.tokenizer.decode(ids) for ids in encoder.encode(example).sequences]


def test_the_four_forms(model_and_encoder):
    _, encoder = model_and_encoder
    s, d, e = SPECIAL_TOKENS
    assert shown(encoder, Classification("a key", 0)) == [f"{s} a key{e}"]
    assert shown(encoder, Entailment("a", "b", 1)) == [f"{s} a{d} b{e}"]
    assert shown(encoder, Similarity("a", "b", 1)) == [f"{s} a{d} b{e}", f"{s} b{d} a{e}"]
    choice = MultipleChoice("a", ("b", "c", "d"), 2)
    assert shown(encoder, choice) == [f"{s} a{d} {x}{e}" for x in "bcd"]
    # What a user writes is text, not a delimiter.
    assert encoder.encode(Classification(e, 0)).sequences[0].count(encoder.end) == 1


def test_a_part_without_room_is_cut_and_counted(model_and_encoder):
    _, encoder = model_and_encoder
    small = Encoder(encoder.tokenizer, 20)
    long = "moon " * 30
    one, two = small.encode(Classification(long, 0)), small.encode(Entailment(long, "key", 0))
    assert (len(one), one.n_cut) == (20, 1)
    assert (len(two.sequences[0]) <= 20, two.n_cut) == (True, 1)
    assert two.sequences[0][-1] == small.end
    both = small.encode(Similarity(long, long, 0))
    assert (len(both), both.n_cut) == (19, 4)


def test_a_label_must_be_an_answers_place(model_and_encoder):
    _, encoder = model_and_encoder
    for wrong in (MultipleChoice("a", ("b", "c"), 2), MultipleChoice("a", ("b",), 0)):
        with pytest.raises(ValueError, match="label: expected the place of one of several"):
            encoder.encode(wrong)
    with pytest.raises(ValueError, match="tokenizer: expected one with the forms'"):
        Encoder(tiny.template().tokenizer, 96)


# --- the objective -------------------------------------------------------------------------------


def test_the_objective_is_numpys():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4)), rng.integers(4, size=3)
    losses, mask = rng.random((6, 5)), rng.random((6, 5)) < 0.6
    mask[2] = False
    for weight in (0.0, 0.5):
        expected = reference(logits, labels, losses, mask, lm_weight=weight)
        found = finetuning_loss(*map(torch.tensor, (logits, labels, losses, mask)), weight)
        np.testing.assert_allclose([x.item() for x in found], expected, rtol=1e-12)


def by_hand(classifier, example, lm_weight):
    """The objective of one example, each sequence alone and unpadded, in NumPy."""
    states, losses = [], []
    for ids in example.sequences:
        tokens = torch.tensor([ids])
        with torch.no_grad():
            hidden = classifier.trunk(tokens)
            log_p = torch.log_softmax(classifier.trunk.logits(hidden)[0, :-1].double(), -1)
        states.append(hidden[0, -1].double().numpy())
        losses.append([-log_p[t, token].item() for t, token in enumerate(ids[1:])])
    weight, bias = (x.detach().double().numpy() for x in (classifier.weight, classifier.bias))
    if example.is_choice:
        logits = np.array([[(weight @ h + bias)[0] for h in states]])
    else:
        logits = (np.sum(states, axis=0) @ weight.T + bias)[None]
    time = max(map(len, losses))
    mask = np.array([[t < len(row) for t in range(time)] for row in losses])
    filled = np.zeros(mask.shape)
    filled[mask] = np.concatenate(losses)
    return logits, reference(logits, np.array([example.label]), filled, mask, lm_weight=lm_weight)


@pytest.mark.parametrize(
    ("examples", "n_classes"),
    [
        ([Classification("a key and a moon", 2), Classification("bird", 0)], 3),
        ([Entailment("Say: moon", "moon", 1), Entailment("Say: a key", "door bird", 0)], 2),
        ([Similarity("a key", "key", 1), Similarity("bird tree door", "moon", 0)], 2),
        ([MultipleChoice("Say: moon", ("moon", "a key", "no"), 0)] * 2, 1),
    ],
)
def test_a_batchs_loss_is_that_of_its_examples_alone(model_and_encoder, examples, n_classes):
    model, encoder = model_and_encoder
    classifier = Classifier(model, n_classes, seed=1).eval()
    with torch.no_grad():
        classifier.weight.mul_(20)
    encoded = [encoder.encode(example) for example in examples]
    for weight in (0.0, 0.5):
        alone = [by_hand(classifier, example, weight) for example in encoded]
        batch = collate(encoded, 0, torch.device("cpu"))
        np.testing.assert_allclose(
            classifier(batch).detach(), np.concatenate([logits for logits, _ in alone]), atol=1e-4
        )
        found = classifier.loss(batch, weight)
        assert found.loss.item() == pytest.approx(np.mean([x.loss for _, x in alone]), abs=1e-4)


def test_the_order_of_a_pair_changes_nothing(model_and_encoder):
    model, encoder = model_and_encoder
    classifier = Classifier(model, 2).eval()
    batches = [
        collate([encoder.encode(Similarity(a, b, 1))], 0, torch.device("cpu"))
        for a, b in (("a key", "bird tree"), ("bird tree", "a key"))
    ]
    torch.testing.assert_close(*map(classifier, batches), rtol=1e-6, atol=1e-6)


def test_the_answers_of_a_choice_lose_the_same_features(model_and_encoder):
    model, encoder = model_and_encoder
    classifier = Classifier(model, 1, dropout=0.5).train()
    same = MultipleChoice("Say: moon", ("moon", "moon"), 0)
    logits = classifier(collate([encoder.encode(same)] * 8, 0, torch.device("cpu")))
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert logits[:, 0].std() > 0  # and each example others


def test_two_forms_do_not_make_a_batch(model_and_encoder):
    _, encoder = model_and_encoder
    mixed = [encoder.encode(x) for x in (Classification("a", 0), Similarity("a", "b", 0))]
    with pytest.raises(ValueError, match="of one form"):
        collate(mixed, 0, torch.device("cpu"))


# --- an encoder in place of the decoder ----------------------------------------------------------


def test_an_encoder_sees_no_padding_and_has_no_language_loss(model_and_encoder):
    decoder, encoder = model_and_encoder
    config = dataclasses.replace(decoder.config, causal=False)
    classifier = Classifier(GPT(config, torch.Generator().manual_seed(0)), 2).eval()
    short, long = (encoder.encode(Classification(text, 0)) for text in ("a", "a key bird tree"))
    together = classifier(collate([short, long], 0, torch.device("cpu")))
    alone = classifier(collate([short], 0, torch.device("cpu")))
    torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="lm_weight: expected 0 for an encoder"):
        classifier.loss(collate([short], 0, torch.device("cpu")), 0.5)


def test_an_encoder_has_no_log_p_from_left_to_right(model_and_encoder):
    decoder, _ = model_and_encoder
    bert = GPT(dataclasses.replace(decoder.config, causal=False))
    with pytest.raises(ValueError, match=r"model: expected a decoder, .*train a head"):
        continuation_log_probs(bert, [Request([1], [2])])


def test_tokens_are_hidden_as_bert_hides_them(model_and_encoder):
    decoder, _ = model_and_encoder
    text = np.random.default_rng(0).integers(0, 100, 5000)
    masked = Masked(Windows(text, 50, 200, 0), mask=300, n_tokens=100)
    tokens, targets = masked.batch(3)
    plain = torch.tensor([w.tokens[:-1] for w in masked.windows.batch(3)])
    chosen = targets != IGNORED
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.015)
    assert torch.equal(tokens[~chosen], plain[~chosen])
    assert torch.equal(targets[chosen], plain[chosen])
    hidden, same = tokens[chosen] == 300, tokens[chosen] == plain[chosen]
    assert hidden.float().mean() == pytest.approx(0.8, abs=0.04)
    assert same.float().mean() == pytest.approx(0.1, abs=0.03)
    assert torch.equal(masked.batch(3)[0], tokens)
    with pytest.raises(ValueError, match="model: expected an encoder"):
        masked_loss(decoder, tokens, targets)
    bert = GPT(dataclasses.replace(decoder.config, causal=False))
    assert 4 < masked_loss(bert, tokens[:4], targets[:4]).item() < 8


# --- training ------------------------------------------------------------------------------------


def test_a_model_learns_to_tell_words(model_and_encoder):
    model, encoder = model_and_encoder
    rng = np.random.default_rng(0)
    words = ["moon", "key", "bird", "tree", "door", "fish"]
    texts = [" ".join(rng.choice(words, 3)) for _ in range(96)]
    examples = [encoder.encode(Classification(text, int("moon" in text))) for text in texts]
    settings = FineTuneSettings(lr=3e-3, batch=16, epochs=6, dropout=0.0)
    trained = fine_tune(from_scratch(model), 2, examples, settings)
    right = [a == b.label for a, b in zip(predictions(trained, examples), examples, strict=True)]
    assert np.mean(right) > 0.95
    # The language model's loss is trained beside it.
    batch = collate(examples, 0, torch.device("cpu"))
    untrained = Classifier(from_scratch(model), 2).eval()
    assert trained.loss(batch, 0.5).language_model < untrained.loss(batch, 0.5).language_model - 1


def test_a_label_beyond_the_classes_is_refused(model_and_encoder):
    model, encoder = model_and_encoder
    with pytest.raises(ValueError, match="label: expected 0 to 1, got 2"):
        fine_tune(model, 2, [encoder.encode(Classification("a", 2))], FineTuneSettings())


def test_blocks_are_transferred_one_by_one(model_and_encoder):
    model, _ = model_and_encoder
    before = model.state_dict()

    def kept(other):
        return {n for n, tensor in other.state_dict().items() if torch.equal(tensor, before[n])}

    matrices = {name for name, tensor in before.items() if tensor.ndim == 2}
    assert kept(from_scratch(model, 1)) & matrices == set()
    assert kept(with_blocks(model, 0)) & matrices == {"wte.weight", "wpe.weight"}
    one = kept(with_blocks(model, 1)) & matrices
    assert one == {n for n in matrices if n.startswith(("w", "h.0."))}
    assert kept(with_blocks(model, model.config.n_layer)) == set(before)
    with pytest.raises(ValueError, match="blocks: expected 0 to the model's 2"):
        with_blocks(model, 3)


def test_the_rate_rises_and_falls_to_nearly_0():
    rates = [linear(step, 10, 1.0, 2) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[-1] == 0.125
    assert all(a > b for a, b in itertools.pairwise(rates[2:]))
