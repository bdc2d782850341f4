"""What it is worth to read a small good text more often than its size says.

A large text (Python's documentation) and a small one (exercises with their answers), the same
number of tokens drawn, and a growing weight of the small one: from none to nine tenths, its share
of the text among them, at which every token is read equally often. Held-out loss of each, and the
mean of the two. GPT-3 reads Wikipedia 3.4 times, and most of Common Crawl not once.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ...configuration import PretrainSettings
from ...corpus.draws import Mixture, Stream
from ...corpus.mixture import plan
from ...data.batches import Windows
from ...data.documentation import documentation
from ...formats.tokenizer import Tokenizer
from ...formats.tokenizer_files import END_OF_TEXT
from ...judging.plots import saved
from ...stages.language_model import summed_loss
from . import world

LARGE, SMALL = "documentation", "exercises"
WEIGHTS = (0.0, 0.1, 0.5, 0.9)  # of the small set, beside the proportional one
SMALL_DOCUMENTS = 250
SETTINGS = PretrainSettings(steps=120, batch=16, time=48, lr=4e-3, warmup=30)
VALIDATION = 60  # windows of each
Rows = list[dict[str, Any]]


def run(seeds: tuple[int, ...] = world.SEEDS) -> Rows:
    """Train a model for each weight and seed.

    Parameters
    ----------
    seeds : tuple of int

    Returns
    -------
    list of dict
        Weight and epochs of the small set, and the held-out loss of both, in nats a token.
    """
    large, held_out = documentation()
    small = [world.document(e) for e in
             itertools.islice(world.asked(held_out=False, seed=0), SMALL_DOCUMENTS)]  # fmt: skip
    kept = [world.document(e) for e in itertools.islice(world.asked(held_out=True, seed=0), 400)]
    tokenizer = Tokenizer.train([*large[:200], *small], 512, [END_OF_TEXT])
    end = tokenizer.special_tokens[END_OF_TEXT]

    def tokens(texts: list[str]) -> list[np.ndarray]:
        return [np.array([*ids, end], np.int32) for ids in tokenizer.encode_batch(texts)]

    documents = {LARGE: tokens(large[:150]), SMALL: tokens(small)}
    sizes = {name: sum(map(len, found)) for name, found in documents.items()}
    proportional = sizes[SMALL] / sum(sizes.values())
    tests = {
        name: Windows(np.concatenate(tokens(texts)), SETTINGS.time, 1, 0).all(VALIDATION)
        for name, texts in ((LARGE, held_out), (SMALL, kept))
    }
    drawn = SETTINGS.steps * SETTINGS.batch * SETTINGS.time
    rows: Rows = []
    for seed, weight in itertools.product(seeds, sorted({*WEIGHTS, proportional})):
        planned = plan(sizes, drawn, weights={LARGE: 1 - weight, SMALL: weight})
        streams = [Stream(documents[p.name], seed, p.name) for p in planned]
        source = Mixture(
            streams,
            [p.weight for p in planned],
            SETTINGS.time,
            SETTINGS.batch,
            SETTINGS.steps,
            seed,
        )
        fresh = world.model(seed, vocab_size=tokenizer.vocab_size)
        model = world.trained(fresh, source, SETTINGS)
        loss = {}
        for name, test in tests.items():
            summed, counted = summed_loss(model, test, 0, model.wte.weight.device)
            loss[name] = summed / counted
        epochs = {p.name: p.epochs for p in planned}
        rows.append(
            {
                "weight": weight, "is_proportional": weight == proportional, "seed": seed,
                "epochs": epochs, "loss": loss, "mean_loss": world.mean(list(loss.values())),
                "n_tokens": {name: len(test) * SETTINGS.time for name, test in tests.items()},
            }
        )  # fmt: skip
    return rows


def draw(rows: Rows, path: Path) -> Path:
    """Draw the held-out losses over the weight of the small set.

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
    figure, axis = plt.subplots(figsize=(6, 3.8))
    weights = sorted({row["weight"] for row in rows})
    places = range(len(weights))  # side by side: the smallest weights lie close together
    epochs = {row["weight"]: row["epochs"].get(SMALL, 0.0) for row in rows}
    series = {
        LARGE: lambda row: row["loss"][LARGE],
        SMALL: lambda row: row["loss"][SMALL],
        "mean of the two": lambda row: row["mean_loss"],
    }
    for name, value in series.items():
        losses = [[value(row) for row in rows if row["weight"] == w] for w in weights]
        (line,) = axis.plot(places, [world.mean(x) for x in losses], "o-", markersize=4, label=name)
        axis.fill_between(places, list(map(min, losses)), list(map(max, losses)), alpha=0.2,
                          color=line.get_color(), linewidth=0)  # fmt: skip
    (proportional,) = {row["weight"] for row in rows if row["is_proportional"]}
    share = weights.index(proportional)
    axis.axvline(share, linestyle=":", color="grey", linewidth=1, label="its share of the text")
    axis.set_xticks(places, [f"{w:.2g}\n{epochs[w]:.1f} times" for w in weights])
    axis.set_xlabel("weight of the exercises, and how often they are read", fontsize=8)
    axis.set_ylabel("held-out loss, nats a token", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    return saved(figure, path)
