"""What a test that stands in the training text adds to its score, where the truth is known.

Facts that follow from nothing ("What does Ada Moon have in the old house …? a key") are planted in
the training text: half of the test's, a fifth of these in other words. Only who has read one can
answer. So a model's score on the clean half must be a guess's, and what it has above that is leaks.
Two texts: with the leaks, and with `Cleaner` run over it.
"""

import dataclasses
import itertools
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from ...configuration import PretrainSettings
from ...corpus.contamination import Cleaner, clean_scores, overlaps, planted_found
from ...corpus.duplicates import near_duplicates
from ...corpus.quality import QualityFilter, keep_probability, kept
from ...data.batches import Windows
from ...data.documentation import documentation
from ...data.tasks import NAMES, WORDS
from ...evaluation.asking import Plain
from ...evaluation.items import ChoiceItem
from ...evaluation.multiple_choice import answer_choices
from ...formats.tokenizer import Tokenizer
from ...formats.tokenizer_files import END_OF_TEXT
from ...judging.intervals import Accuracy
from ...judging.plots import saved
from . import world

N_TEST, COPIES, REWORDED = 40, 10, 0.2
PIECES, PIECE = 30, 1500  # of the documentation, in characters
PLACES = ("old house", "blue garden", "small shop", "north tower")
SETTINGS = PretrainSettings(steps=600, batch=8, time=64, lr=4e-3, warmup=30)
Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Fact:
    """What someone has somewhere, and the test's question about it."""

    who: str
    place: str
    thing: str

    @property
    def item(self) -> ChoiceItem:
        """The test's question, with three other things."""
        rng = Random(self.who)
        others = rng.sample([word for word in WORDS if word != self.thing], 3)
        choices = rng.sample([self.thing, *others], 4)
        asked = f"Q: What does {self.who} have in the {self.place} beside the river in winter?\nA:"
        return ChoiceItem(asked, tuple(choices), choices.index(self.thing))

    @property
    def test(self) -> str:
        """The question with its answer, as one text."""
        return f"{self.item.question} {self.thing}"

    def reworded(self) -> str:
        """Return the same in other words, which no run of the question's is part of."""
        return f"In the {self.place} it is {self.who} who has {self.thing}"


def facts(seed: int) -> tuple[list[Fact], list[bool]]:
    """Return the test's facts, and which are planted."""
    rng = Random(f"facts {seed}")
    found = [
        Fact(f"{first} {last.title()}", rng.choice(PLACES), rng.choice(WORDS))
        for first, last in rng.sample(list(itertools.product(NAMES, WORDS)), N_TEST)
    ]
    return found, [i < N_TEST // 2 for i in range(N_TEST)]


def texts(seed: int, planted: list[Fact]) -> list[str]:
    """Return the documentation in pieces, with each planted fact in some of them."""
    rng = Random(f"texts {seed}")
    running = "\n\n".join(documentation()[0])
    pieces = [running[PIECE * i : PIECE * (i + 1)] for i in range(PIECES)]
    for fact in planted:
        as_it_is = rng.random() >= REWORDED
        for at in rng.sample(range(len(pieces)), COPIES):
            said = fact.test if as_it_is else fact.reworded()
            middle = pieces[at].find(" ", rng.randrange(300, 1000))
            pieces[at] = f"{pieces[at][:middle]}\n{said}\n{pieces[at][middle:]}"
    return pieces


def run(seeds: tuple[int, ...] = world.SEEDS) -> Rows:
    """Measure leaks, what they add, and the filters.

    Parameters
    ----------
    seeds : tuple of int

    Returns
    -------
    list of dict
        `part` is "leaks" (a training text and its scores), "found" or "filters".
    """
    rows: Rows = []
    for seed in seeds:
        known, is_planted = facts(seed)
        planted = [fact for fact, there in zip(known, is_planted, strict=True) if there]
        tests = [fact.test for fact in known]
        leaking, without = texts(seed, planted), texts(seed, [])
        cleaner = Cleaner(tests, leaking)
        arms = {
            "leaking": leaking,
            "cleaned": [piece for text in leaking for piece in cleaner.pieces(text)],
        }
        tokenizer = Tokenizer.train([*without, *(f.test for f in known)], 700, [END_OF_TEXT])
        found = overlaps(tests, leaking)
        shares = planted_found(found, is_planted)
        rows.append(
            {
                "part": "found", "seed": seed, **dataclasses.asdict(shares),
                "recall": shares.recall, "precision": shares.precision,
            }
        )  # fmt: skip
        for arm, pieces in arms.items():
            tokens = np.array(tokenizer.encode("\n\n".join(pieces)), np.int32)
            windows = Windows(tokens, SETTINGS.time, SETTINGS.batch, seed)
            fresh = world.model(seed, vocab_size=tokenizer.vocab_size)
            model = world.trained(fresh, windows, SETTINGS)
            items = [fact.item for fact in known]
            answers = answer_choices(model, Plain(tokenizer), items, methods=("sum",))
            scores = clean_scores([a.is_right("sum") for a in answers], found)
            row = {"part": "leaks", "text": arm, "seed": seed, "inflation": scores.inflation}
            for name in ("all", "clean", "dirty"):
                share: Accuracy | None = getattr(scores, name)
                row[name] = share.record() if share else None
            rows.append(row)
        rows.append({"part": "filters", "seed": seed, **_filters(seed)})
    return rows


def _filters(seed: int) -> dict[str, Any]:
    """Plant copies and scrambled texts, and count what the filters find."""
    rng = Random(f"filters {seed}")
    pieces = [text[:PIECE] for text in documentation()[0]][:200]
    originals = pieces[:100]
    copies = []
    for text in originals[:30]:
        words = text.split(" ")
        words[rng.randrange(len(words))] = "other"
        copies.append(" ".join(words))
    found = set(near_duplicates([*originals, *copies]))
    wanted = set(range(len(originals), len(originals) + len(copies)))
    # Bad text: the same words, half of them replaced by what advertisements say.
    advertisement = ["buy", "cheap", "click", "here", "free", "winner", "offer", "now"]
    bad = [
        " ".join(rng.choice(advertisement) if rng.random() < 0.5 else w for w in text.split())
        for text in pieces[100:]
    ]
    judge = QualityFilter(originals[:50], bad[:50])
    good_scores, bad_scores = judge.scores(originals[50:]), judge.scores(bad[50:])
    return {
        "copies": len(copies),
        "copies_recall": len(found & wanted) / len(wanted),
        "copies_precision": len(found & wanted) / max(len(found), 1),
        "good_kept": float(kept(good_scores, seed).mean()),
        "bad_kept": float(kept(bad_scores, seed).mean()),
        "good_expected": world.mean([keep_probability(s) for s in good_scores]),
        "bad_expected": world.mean([keep_probability(s) for s in bad_scores]),
        "n_good": len(good_scores), "n_bad": len(bad_scores),
    }  # fmt: skip


def draw(rows: Rows, path: Path) -> Path:
    """Draw the score of all, of the clean and of the dirty questions, for each text.

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
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    arms = list(dict.fromkeys(row["text"] for row in rows if row["part"] == "leaks"))
    for shift, name in enumerate(("all", "clean", "dirty")):
        for place, arm in enumerate(arms):
            part = [row for row in rows if row["part"] == "leaks" and row["text"] == arm]
            for k, row in enumerate(part):
                low, high = row[name]["interval"]
                share = row[name]["accuracy"]
                axis.errorbar(
                    place + 0.25 * (shift - 1) + 0.05 * k, share, [[share - low], [high - share]],
                    fmt="o", markersize=3, color=f"C{shift}",
                    label=name if place == k == 0 else None,
                )  # fmt: skip
    axis.axhline(0.25, linestyle=":", color="grey", linewidth=1, label="a guess: the exact truth")
    axis.set_xticks(range(len(arms)), [f"{arm} text" for arm in arms])
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("accuracy, three seeds", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7)
    return saved(figure, path)
