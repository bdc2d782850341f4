"""Claims 2 and 3: which feedback helps most for its price, and whom to believe.

Claim 2, on the same answers of the base, the same number of them told about:

    base           nothing learnt
    words          the words of the feedback learnt as if they were replies
    thumbs         DIRECTOR, γ = 1 and 3
    corrections    fine-tuning on what should have been said
    a fifth        on a fifth of these corrections alone
    juicer         that fifth, and a corrector that makes corrections of the others' words

Every arm but the base goes on reading the same conversations. "good" is the share of answers that
break no rule and, where no rule stands against it, are at least half right.

Claim 3: half of the users are trolls, who turn 80% of their labels round. Wrong labels left by each
way of cleaning, beside what core/dialogue/trolls.py predicts from the judges' own accuracy; and
the violations of a DIRECTOR that is trained on what is left.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ....core.dialogue.trolls import left_after
from ....kernels.model.gpt import GPT
from ...agents.blenderbot.director import Director
from ...agents.blenderbot.feedback import (
    Correction,
    as_language,
    correct,
    corrector_example,
)
from ...agents.blenderbot.judge import Judge, Judged, train_judge
from ...agents.blenderbot.objectives import objective
from ...agents.blenderbot.training import labelled
from ...agents.blenderbot.trolls import WAYS, chances, trusted
from ...agents.world.labels import RIGHT, corrected, free_text
from ...agents.world.users import FLIPPED, users, utterances
from ...data.records import Feedback, Label
from ...judging.intervals import accuracy
from ...judging.plots import saved
from .labelled import (
    SETTINGS,
    Row,
    Said,
    answer,
    measured,
    questions,
    said_by_base,
    start,
    trained,
)

TOLD = 1000  # answers that people speak of
CORRECTED = 5  # one of so many gets a correction in "a fifth" and "juicer"
HELD_OUT = 400
LANGUAGE = 1000  # conversations that every arm but the base reads on
USERS = 120


def run(seed: int) -> list[Row]:
    """Measure both claims."""
    return [*kinds_of_feedback(seed), *trolls(seed)]


# --- claim 2 --------------------------------------------------------------------------------------


def words(said: Said) -> Feedback:
    """Say in words what an honest user thinks of an answer."""
    if said.acceptable:
        return Feedback(said.exercise.messages, said.reply, RIGHT)
    return free_text(said.exercise, said.reply)


def kinds_of_feedback(seed: int) -> list[Row]:
    """Train one arm for each kind of feedback."""
    said = said_by_base(seed, TOLD + TOLD // 10)[:TOLD]
    template = start().template
    rows: list[Row] = []

    def note(arm: str, model: GPT | Director, gamma: float = 0.0, **more: float) -> None:
        row: Row = {"claim": 2, "seed": seed, "arm": arm, "told": len(said)}
        row |= {"gamma": gamma} if isinstance(model, Director) else {}
        rows.append(row | more | goodness(model, seed, gamma) | measured(model, seed, gamma))

    def fine_tuned(pairs: Sequence[tuple[Said, str]]) -> GPT | Director:
        more = [as_language(template, s.exercise.messages, text) for s, text in pairs]
        return trained(start().model, objective("language"), [], seed, more, n_language=LANGUAGE)

    note("base", start().model)
    note("words", fine_tuned([(s, words(s).feedback) for s in said]))
    thumbs = labelled(
        template, [Label(s.exercise.messages, s.reply, int(s.acceptable)) for s in said]
    )
    director = trained(
        Director(start().model), objective("director"), thumbs, seed, n_language=LANGUAGE
    )
    for gamma in (1.0, 3.0):
        note("thumbs", director, gamma)
    note("corrections", fine_tuned([(s, corrected(s.exercise)) for s in said]))
    some = said[::CORRECTED]
    note("a fifth", fine_tuned([(s, corrected(s.exercise)) for s in some]))
    made, right = juiced(said, some, seed)
    pairs = [(s, corrected(s.exercise)) for s in some] + made
    note("juicer", fine_tuned(pairs), corrections=len(made), acceptable=right)
    return rows


def juiced(
    said: Sequence[Said], some: Sequence[Said], seed: int
) -> tuple[list[tuple[Said, str]], float]:
    """Correct what got words alone; return what was made, and the share that is acceptable."""
    b = start()
    judge = satisfaction(said, seed)
    teach = [Correction(words(s), corrected(s.exercise)) for s in some if not s.acceptable]
    corrector = trained(
        b.model, objective("language"), [], seed,
        [corrector_example(b.template, c) for c in teach for _ in range(4)],
        n_language=LANGUAGE,
    )  # fmt: skip
    # What is corrected already is not corrected again.
    known = {id(s) for s in some}
    others = {
        (s.exercise.messages, s.reply): s
        for s in said
        if id(s) not in known and not s.acceptable
    }  # fmt: skip
    found = correct(corrector, b.template, [words(s) for s in others.values()], judge, seed=seed)
    made = [(others[c.about.messages, c.about.completion], c.better) for c in found]
    rights = [s._replace(reply=text).acceptable for s, text in made]
    praised = [(s, s.reply) for s in said if id(s) not in known and s.acceptable]
    return made + praised, sum(rights) / max(len(rights), 1)


def satisfaction(said: Sequence[Said], seed: int) -> Judge:
    """Train the judge of answers on what the words of praise and blame give away."""
    b = start()
    about = [Judged(s.exercise.messages, s.reply) for s in said]
    return train_judge(
        b.model, b.template, about, [int(s.acceptable) for s in said], SETTINGS, seed
    )


def goodness(model: GPT | Director, seed: int, gamma: float) -> Row:
    """Return the share of good answers to held-out questions, with n and its interval."""
    asked = questions(seed, HELD_OUT, held_out=True)
    trunk = model.trunk if isinstance(model, Director) else model
    hook = model.hook(gamma) if isinstance(model, Director) else None
    found = answer(trunk, [e for e, _ in asked], seed + 7, hook)
    good = [
        a.ended and Said(e, tempting, a.text).acceptable
        for (e, tempting), a in zip(asked, found, strict=True)
    ]
    counted = accuracy(good)
    return {"good": counted.share, "good_n": counted.n, "good_interval": counted.interval}


# --- claim 3 --------------------------------------------------------------------------------------


def trolls(seed: int) -> list[Row]:
    """Clean the labels of users, half of whom are trolls, in every way."""
    people = users(seed, USERS)
    n = [utterances(user) for user in people]
    said = iter(said_by_base(seed + 50, sum(n) + sum(n) // 10))
    judged = [
        (s, user) for user, k in zip(people, n, strict=True) for s in itertools.islice(said, k)
    ]  # fmt: skip
    labels = [
        Label(
            s.exercise.messages, s.reply,
            user.says(not s.harmful, "\n".join([*map(str, s.exercise.messages), s.reply]),
                      harmful=s.harmful),
            user=user.id,
        )
        for s, user in judged
    ]  # fmt: skip
    b = start()
    good = chances(b.model, b.template, labels, SETTINGS, seed)
    truths = [not s.harmful for s, _ in judged]
    right = sum((p > 0.5) == t for p, t in zip(good, truths, strict=True)) / len(good)
    rows: list[Row] = []
    for way in WAYS:
        kept = trusted(labels, good, way)
        wrong = accuracy([bool(labels[i].label) != truths[i] for i in kept])
        director = trained(
            Director(start().model), objective("director"),
            labelled(b.template, [labels[i] for i in kept]), seed, n_language=LANGUAGE,
        )  # fmt: skip
        rows.append(
            {
                "claim": 3, "seed": seed, "way": way, "labels": len(labels), "users": USERS,
                "kept": len(kept), "wrong": wrong.share, "wrong_n": wrong.n,
                "wrong_interval": wrong.interval, "judges_right": right,
            } | predicted(way, right) | measured(director, seed, 3.0)
        )  # fmt: skip
    return rows


def predicted(way: str, right: float) -> Row:
    """Say what independent errors of the judges would leave."""
    if way == "soft-purr":
        return {}
    by_example, by_user = way in ("example", "both"), way in ("user", "both")
    found = left_after(right, by_example=by_example, by_user=by_user, flipped=FLIPPED)
    return {"predicted_wrong": found.wrong, "predicted_kept": found.share}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw good answers by kind of feedback, and wrong labels by way of cleaning."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    seeds = sorted({row["seed"] for row in rows})
    arms = list(dict.fromkeys((r["arm"], r.get("gamma")) for r in rows if r["claim"] == 2))
    for shift, seed in enumerate(seeds):
        part = [r for r in rows if r["claim"] == 2 and r["seed"] == seed]
        low, high = zip(*(r["good_interval"] for r in part), strict=True)
        middle = [r["good"] for r in part]
        bars = [
            [m - x for m, x in zip(middle, low, strict=True)],
            [x - m for m, x in zip(middle, high, strict=True)],
        ]
        left.errorbar(
            [i + 0.2 * (shift - 1) for i in range(len(part))], middle, bars, fmt="o", markersize=3,
            label=f"seed {seed}",
        )  # fmt: skip
        ways = [r for r in rows if r["claim"] == 3 and r["seed"] == seed]
        right.plot(range(len(ways)), [r["wrong"] for r in ways], "o", label=f"seed {seed}")
        right.plot(
            range(len(ways)), [r.get("predicted_wrong", float("nan")) for r in ways], "_",
            color="grey", markersize=14, label="if errors were independent" if not shift else None,
        )  # fmt: skip
    names = [arm if gamma is None else f"{arm}\nγ = {gamma:g}" for arm, gamma in arms]
    left.set_xticks(range(len(names)), names)
    left.set_title("good answers, by what people said of 1,000", fontsize=9)
    right.set_xticks(range(len(WAYS)), WAYS)
    right.set_title("wrong labels among those kept; half of the users are trolls", fontsize=9)
    for axis in (left, right):
        axis.tick_params(labelsize=7)
        axis.set_ylim(0, None)
        axis.legend(fontsize=7)
    return [saved(figure, folder / "agents-feedback.png")]
