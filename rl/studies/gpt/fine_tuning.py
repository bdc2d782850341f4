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

N_TEST = 150
MOST = 500  # examples; of entailment, also fewer
SIZES = {"classification": (20, 50, 150), "entailment": (50, 150, MOST)}
STEPS = {20: 40, 50: 40, 150: 60, MOST: 120}
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
        answer = e.answer if right else world.other_answers(e, rng, 1)[0]
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
        for item in world.choice_items(
            200, seed + 1000 * part, held_out=held_out, wrong=world.other_answers
        ):
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
        wanted = [(task, size) for task in TASKS for size in SIZES.get(task, (MOST,))]
        for (task, size), arm in itertools.product(wanted, ARMS):
            trunk = from_scratch(pretrained, seed) if arm == ARMS[0] else _copy(pretrained)
            row = measured(trunk, task, size, 0.5 if arm == ARMS[2] else 0.0)
            rows.append({"part": "arms", "arm": arm, **row})
        for blocks in range(n_layer + 1):
            trunk = with_blocks(pretrained, blocks, seed)
            row = measured(trunk, "entailment", MOST, 0.0)
            rows.append({"part": "blocks", "blocks": blocks, **row})
        bert, _ = with_special_tokens(world.encoder(seed), world.tokenizer(), seed)
        for arm, trunk in (
            ("encoder from scratch, head", from_scratch(bert, seed)),
            ("encoder, head", _copy(bert)),
        ):
            rows.append({"part": "bert", "arm": arm, **measured(trunk, "choice", MOST, 0.0)})
        items = world.choice_items(N_TEST, 0, held_out=True, wrong=world.other_answers)
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
    """Draw accuracy by task, by the number of examples, by blocks kept, and the contrast with BERT.

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
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 6.4))
    tasks, sizes, blocks, bert = axes.flat
    arms = [row for row in rows if row["part"] == "arms"]
    for shift, arm in enumerate(ARMS):
        part = [row for row in arms if row["arm"] == arm and row["size"] == _most(row["task"])]
        places = [list(TASKS).index(row["task"]) + 0.2 * (shift - 1) for row in part]
        tasks.plot(places, [row["accuracy"] for row in part], "o", markersize=4, label=arm)
    for place, (_, _, chance) in enumerate(TASKS.values()):
        label = "a guess" if place == 0 else None
        tasks.hlines(chance, place - 0.4, place + 0.4, "grey", "dotted", linewidth=1, label=label)
    tasks.set_xticks(range(len(TASKS)), list(TASKS))
    _frame(tasks, "most examples of each task, each seed", "")
    for (task, style), arm in itertools.product(
        (("classification", "o--"), ("entailment", "o-")), ARMS
    ):
        part = [row for row in arms if row["arm"] == arm and row["task"] == task]
        _band(sizes, part, "size", f"{task}, {arm}", style, f"C{ARMS.index(arm)}")
    sizes.set_xscale("log")
    counts = sorted({size for of_task in SIZES.values() for size in of_task})
    sizes.set_xticks(counts, [str(size) for size in counts])
    sizes.minorticks_off()
    _frame(sizes, "classification and entailment", "labelled examples")
    kept = [row for row in rows if row["part"] == "blocks"]
    _band(blocks, kept, "blocks", "embeddings and blocks kept")
    blocks.set_xticks(sorted({row["blocks"] for row in kept}))
    blocks.axhline(0.5, linestyle=":", color="grey", linewidth=1, label="a guess")
    _frame(blocks, f"entailment, {MOST} examples", "pretrained blocks kept")
    contrast = [row for row in rows if row["part"] == "bert"]
    heads = [row for row in arms if row["task"] == "choice" and row["arm"] in ARMS[:2]]
    names = [
        *(f"decoder {arm}, head" for arm in ARMS[:2]),
        *dict.fromkeys(r["arm"] for r in contrast),
    ]
    for row in [*({**r, "arm": f"decoder {r['arm']}, head"} for r in heads), *contrast]:
        bert.plot(row["accuracy"], names.index(row["arm"]), "o", color="C0", markersize=4)
    bert.set_yticks(range(len(names)), names)
    bert.invert_yaxis()
    bert.axvline(0.25, linestyle=":", color="grey", linewidth=1)
    bert.axvline(1, color="grey", linewidth=0.5)
    bert.set_xlim(0, 1.03)
    bert.set_title("choice: a head or log P, each seed", fontsize=9)
    bert.tick_params(labelsize=7)
    return saved(figure, path)


def _most(task: str) -> int:
    """Return the most examples that a task is given."""
    return max(SIZES.get(task, (MOST,)))


def _band(
    axis: plt.Axes, rows: Rows, by: str, label: str, style: str = "o-", colour: str = "C0"
) -> None:
    """Draw the mean over seeds, and from the lowest to the highest."""
    places = sorted({row[by] for row in rows})
    shares = [[row["accuracy"] for row in rows if row[by] == place] for place in places]
    means = [world.mean(s) for s in shares]
    axis.plot(places, means, style, markersize=4, label=label, color=colour)
    axis.fill_between(places, list(map(min, shares)), list(map(max, shares)), alpha=0.12,
                      color=colour, linewidth=0)  # fmt: skip


def _frame(axis: plt.Axes, title: str, below: str) -> None:
    axis.axhline(1, color="grey", linewidth=0.5)
    axis.set_ylim(0, 1.03)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
