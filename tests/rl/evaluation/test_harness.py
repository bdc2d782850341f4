"""The scores are lm-evaluation-harness's, on the same model and the same questions."""

import numpy as np
import pytest

from gptwin.core.model.presets import GPTConfig, parameter_shapes
from gptwin.rl.evaluation.asking import Plain
from gptwin.rl.evaluation.items import ChoiceItem
from gptwin.rl.evaluation.models import load_model
from gptwin.rl.evaluation.multiple_choice import answer_choices
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.formats.weights import save_gpt2

# Theirs, and ours.
METRICS = {
    "acc": "sum",
    "acc_norm": "per_character",
    "acc_bytes": "per_byte",
    "acc_mutual_info": "against",
}
CHOICES = ("a key", "the moon", "né 🙂", "two birds and a stone", "no", "not a moon")


def questions(n=40):
    rng = np.random.default_rng(0)
    return [
        ChoiceItem(
            f"Question: where is {CHOICES[i % 6]}, number {i}?\nAnswer:",
            tuple(CHOICES[j] for j in rng.permutation(6)[: 2 + i % 4]),
            i % 2,
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 with random weights, far from uniform, as transformers reads it."""
    tokenizer = Tokenizer.train(["\n".join((q.question, *q.choices)) for q in questions()], 320)
    config = GPTConfig(tokenizer.vocab_size, 64, 2, 2, 32)
    rng = np.random.default_rng(0)
    parameters = {
        name: (rng.normal(size=shape) * 0.3 + name.endswith(("ln_1.weight", "ln_2.weight")))
        .astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }  # fmt: skip
    at = tmp_path_factory.mktemp("gpt2")
    save_gpt2(at, config, parameters, tokenizer)
    return at


@pytest.fixture(scope="module")
def theirs(folder):
    """What the harness stores of each question, and its four accuracies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        pytest.importorskip("lm_eval")
        transformers = pytest.importorskip("transformers")
        datasets = pytest.importorskip("datasets")
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        rows = [
            {"question": q.question, "choices": list(q.choices), "answer": q.answer}
            for q in questions()
        ]
        task = ConfigurableTask(
            config={
                "task": "own",
                "output_type": "multiple_choice",
                "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
                "test_split": "test",
                "doc_to_text": "{{question}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{answer}}",
                "metric_list": [{"metric": metric} for metric in METRICS],
            }
        )
        model = HFLM(
            pretrained=transformers.GPT2LMHeadModel.from_pretrained(folder),
            tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
            batch_size=8,
        )
        found = evaluate(model, {"own": task}, bootstrap_iters=0)
    samples = sorted(found["samples"]["own"], key=lambda sample: sample["doc_id"])
    return found["results"]["own"], samples


def test_four_scores_are_the_harnesss(folder, theirs):
    results, samples = theirs
    loaded = load_model(folder)
    items = questions()
    answers = answer_choices(loaded.model, Plain(loaded.tokenizer), items, context_free="")
    for item, answer, sample in zip(items, answers, samples, strict=True):
        sums = np.array([float(log_prob) for log_prob, _ in sample["filtered_resps"]])
        n = len(item.choices)
        np.testing.assert_allclose(answer.scores.scores("sum"), sums[:n], atol=1e-4)
        np.testing.assert_allclose(answer.scores.scores("against"), sums[:n] - sums[n:], atol=1e-4)
        for metric, method in METRICS.items():
            assert answer.is_right(method) == sample[metric], (metric, item)
    for metric, method in METRICS.items():
        ours = np.mean([answer.is_right(method) for answer in answers])
        assert ours == pytest.approx(results[f"{metric},none"])
    # The scores differ in what they prefer, or the test would show little.
    picked = {tuple(a.scores.pick(method) for a in answers) for method in METRICS.values()}
    assert len(picked) == 4
