"""What pretraining is worth to a classifier, and the language model's loss beside the task's.

GPT-1's four kinds of task, on exercises; three arms (from scratch, pretrained, pretrained with λ =
0.5), and numbers of examples; then how many of the pretrained blocks are kept (its figure 2); and
the contrast with BERT: the choice task by an encoder with a head, beside a decoder's log P.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from matplotlib import pyplot as plt

from ...data.tasks import FAMILIES, WORDS
from ...evaluation.multiple_choice import answer_choices
from ...finetuning.fine_tune import (
    FineTuneSettings,
    fine_tune,
    from_scratch,
    predictions,
    with_blocks,
    with_special_tokens,
)
from ...finetuning.forms import (
    Classification,
    Encoder,
    Entailment,
    Form,
    MultipleChoice,
    Similarity,
)
from ...judging.intervals import accuracy
from ...judging.plots import saved
from . import world

N_TEST = 200
SIZES = (50, 500)
STEPS = {50: 40, 500: 100}
BATCH = 8
ARMS = ("from scratch", "pretrained", "pretrained, λ = 0.5")
Rows = list[dict[str, Any]]


def classification(seed: int, held_out: bool) -> Iterator[Form]:
    """Draw questions, and which family each is of."""
    families = list(FAMILIES)
    for e in world.asked(held_out=held_out, seed=seed):
        yield Classification(world.question(e), families.index(e.family))


def entailment(seed: int, held_out: bool) -> Iterator[Form]:
    """Draw questions with an answer, and whether it is right."""
    rng = Random(f"entailment {seed} {held_out}")
    for e in world.asked(held_out=held_out, seed=seed):
        right = rng.random() < 0.5
        answer = e.answer if right else world.wrong_answers(e, rng, 1)[0]
        yield Entailment(world.question(e), answer, int(right))


def similarity(seed: int, held_out: bool) -> Iterator[Form]:
    """Draw two lists of words, and whether they are the same in another order."""
    rng = Random(f"similarity {seed} {held_out}")
    while True:
        a = rng.sample(WORDS, 3)
        b = rng.sample(a, 3)
        same = rng.random() < 0.5
        if not same:
            b[rng.randrange(3)] = rng.choice([word for word in WORDS if word not in a])
        yield Similarity(" ".join(a), " ".join(b), int(same))


def choice(seed: int, held_out: bool) -> Iterator[Form]:
    """Draw questions with four answers, and which is right."""
    for part in itertools.count():
        for item in world.choice_items(200, seed + 1000 * part, held_out=held_out):
            yield MultipleChoice(item.question, item.choices, item.answer)


TASKS: dict[str, tuple[Callable[[int, bool], Iterator[Form]], int, float]] = {
    "classification": (classification, len(FAMILIES), 1 / 7),
    "entailment": (entailment, 2, 0.5),
    "similarity": (similarity, 2, 0.5),
    "choice": (choice, 1, 0.25),
}


def run(seeds: tuple[int, ...] = world.SEEDS) -> Rows:
    """Measure all of it.

    Parameters
    ----------
    seeds : tuple of int

    Returns
    -------
    list of dict
        One accuracy a row: `part` is "arms", "blocks" or "bert".
    """
    rows: Rows = []
    for seed in seeds:
        pretrained, tokenizer = with_special_tokens(world.decoder(seed), world.tokenizer(), seed)
        encode = Encoder(tokenizer, world.N_CTX).encode
        # Kept exercises of one seed: the same test for all.
        tests = {name: list(map(encode, itertools.islice(make(0, True), N_TEST)))
                 for name, (make, _, _) in TASKS.items()}  # fmt: skip

        def measured(trunk: Any, task: str, size: int, lm_weight: float, seed: int = seed,
                     encode: Any = encode, tests: Any = tests) -> dict[str, Any]:  # fmt: skip
            make, n_classes, _ = TASKS[task]
            examples = list(map(encode, itertools.islice(make(seed + 1, False), size)))
            settings = FineTuneSettings(
                lr=1e-3, batch=BATCH, epochs=max(1, STEPS[size] * BATCH // size), warmup=0.1,
                lm_weight=lm_weight, dropout=0.1, seed=seed,
            )  # fmt: skip
            classifier = fine_tune(trunk, n_classes, examples, settings)
            found = predictions(classifier, tests[task])
            rights = [a == b.label for a, b in zip(found, tests[task], strict=True)]
            row = {"task": task, "size": size, "seed": seed, **accuracy(rights).record()}
            print(row, file=sys.stderr)
            return row

        n_layer = pretrained.config.n_layer
        for task, size, arm in itertools.product(TASKS, SIZES, ARMS):
            trunk = from_scratch(pretrained, seed) if arm == ARMS[0] else _copy(pretrained)
            row = measured(trunk, task, size, 0.5 if arm == ARMS[2] else 0.0)
            rows.append({"part": "arms", "arm": arm, **row})
        for blocks in range(n_layer + 1):
            trunk = with_blocks(pretrained, blocks, seed)
            rows.append({"part": "blocks", "blocks": blocks, **measured(trunk, "choice", 500, 0.0)})
        bert, _ = with_special_tokens(world.encoder(seed), world.tokenizer(), seed)
        for size in SIZES:
            for arm, trunk in (
                ("encoder from scratch, head", from_scratch(bert, seed)),
                ("encoder, head", _copy(bert)),
            ):
                row = measured(trunk, "choice", size, 0.0)
                rows.append({"part": "bert", "arm": arm, **row})
        items = world.choice_items(N_TEST, 0, held_out=True)
        methods = ["sum", "per_token"]
        answers = answer_choices(world.decoder(seed), world.asking(), items, methods=methods)
        for method in methods:
            shares = accuracy([a.is_right(method) for a in answers]).record()
            row = {"part": "bert", "arm": f"decoder's log P, {method}", "task": "choice"}
            rows.append({**row, "size": 0, "seed": seed, **shares})
    return rows


def _copy(model: Any) -> Any:
    return with_blocks(model, model.config.n_layer)


def draw(rows: Rows, path: Path) -> Path:
    """Draw accuracy by the number of examples, by blocks kept, and the contrast with BERT.

    Parameters
    ----------
    rows : list of dict
        From `run`.
    path : pathlib.Path
        Of the picture.

    Returns
    -------
    pathlib.Path
    """
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 6))
    for axis, (task, (_, _, chance)) in zip(axes.flat, TASKS.items(), strict=False):
        part = [row for row in rows if row["part"] == "arms" and row["task"] == task]
        _lines(axis, part, ARMS)
        _frame(axis, task, chance, "labelled examples")
    blocks = [row for row in rows if row["part"] == "blocks"]
    _band(axes.flat[4], blocks, "blocks", "pretrained blocks kept", "o-")
    _frame(axes.flat[4], "choice, 500 examples", 0.25, "pretrained blocks kept")
    bert = [row for row in rows if row["part"] == "bert"]
    heads = sorted({row["arm"] for row in bert if row["size"]})
    last = axes.flat[5]
    _lines(last, bert, heads)
    decoder = [row for row in rows if row["part"] == "arms" and row["task"] == "choice"]
    _lines(last, decoder, ARMS[1:2], "decoder, head")
    for arm, style in (("sum", "--"), ("per_token", "-.")):
        shares = [r["accuracy"] for r in bert if r["arm"] == f"decoder's log P, {arm}"]
        label = f"decoder's log P, {arm}, no example"
        last.axhline(world.mean(shares), linestyle=style, color="black", linewidth=1, label=label)
    _frame(last, "choice: a head or log P", 0.25, "labelled examples")
    return saved(figure, path)


def _lines(axis: plt.Axes, rows: Rows, arms: Any, label: str = "") -> None:
    for arm in arms:
        _band(axis, [row for row in rows if row["arm"] == arm], "size", label or arm, "o-")
    axis.set_xscale("log")
    axis.set_xticks(SIZES, [str(size) for size in SIZES])
    axis.minorticks_off()


def _band(axis: plt.Axes, rows: Rows, by: str, label: str, style: str) -> None:
    """Draw the mean over seeds, and from the lowest to the highest."""
    places = sorted({row[by] for row in rows})
    shares = [[row["accuracy"] for row in rows if row[by] == place] for place in places]
    (line,) = axis.plot(places, [world.mean(s) for s in shares], style, markersize=3, label=label)
    axis.fill_between(places, list(map(min, shares)), list(map(max, shares)), alpha=0.15,
                      color=line.get_color(), linewidth=0)  # fmt: skip


def _frame(axis: plt.Axes, title: str, chance: float, below: str) -> None:
    axis.axhline(chance, linestyle=":", color="grey", linewidth=1, label="a guess")
    axis.axhline(1, color="grey", linewidth=0.5)
    axis.set_ylim(0, 1.03)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=6)
