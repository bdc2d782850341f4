"""`gptwin prompt TECHNIQUE`: every technique beside its controls, with what each of them costs.

An experiment is a list of arms, a technique each, that answer the same questions. A row of its
table says how many were right, with Wilson's interval, and what a question cost: replies asked for,
tokens read, tokens written. Hints and attacks train models of their own first.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...records import json_lines, provenance, write_whole
from ..judging.intervals import wilson
from ..prompting import attacks, facts, hints
from ..prompting import techniques as t
from ..prompting.corpus import questions, teach
from ..prompting.interface import Answered, Question, Technique, answer_all
from ..prompting.speaker import Speaker, load_speaker

RUN = "runs/prompting"
COSTS = ("calls", "n_read", "n_written")
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A technique's arms.

    Attributes
    ----------
    about : str
        What it is, in a line.
    family : str
        Of the questions.
    arms : dict of str to Technique
    """

    about: str
    family: str
    arms: dict[str, Technique]


def _true_facts(question: Question) -> str:
    return question.documents[0]


def _wrong_facts(question: Question) -> str:
    """Return facts of the same form of which the last, the colour, is not true."""
    *words, colour = question.documents[0].split()
    others = [other for other in facts.COLOURS if other != colour]
    return " ".join([*words, others[len(words[0]) % len(others)]])


def _documents_first(question: Question) -> str:
    """Return the document that tells: what a perfect search would find."""
    name = question.text.split()[-1]
    return f"{name} keeps {question.answer}"


def _no_tools(question: Question) -> dict[str, t.Tool]:
    return {}


EXPERIMENTS = {
    "chain-of-thought": Experiment(
        "steps before the answer, beside a filler of the same length",
        "links",
        {"answer at once": t.cued(), "filler": t.reasoned("filler"), "steps": t.reasoned()},
    ),
    "self-consistency": Experiment(
        "many chains of thought at temperature 1, and a vote",
        "links",
        {
            "likeliest steps": t.reasoned(),
            **{f"vote of {n}": t.voted(n) for n in (1, 5, 10, 20)},
            "vote of 20 by probability": t.weighed(20),
            "likeliest of 20": t.likeliest(20),
            "any of 20 (an oracle)": t.any_of(20),
        },
    ),
    "generated-knowledge": Experiment(
        "one call writes the facts, the next one answers from them",
        "home",
        {
            "answer at once": t.cued(),
            "facts first": t.known_first(),
            "true facts given": t.told(_true_facts),
            "wrong facts given": t.told(_wrong_facts),
        },
    ),
    "chaining": Experiment(
        "two tasks, one after the other, that were never asked as one",
        "chain",
        {"asked as one": t.asked_as_one(), "one after the other": t.chained()},
    ),
    "retrieval": Experiment(
        "documents outside the weights: the k that share most words with the question",
        "pet",
        {
            "no document": t.cued(),
            **{f"best {k}": t.retrieved(k) for k in (1, 2, 3, 5)},
            "the right one": t.told(_documents_first),
        },
    ),
    "react": Experiment(
        "a calculator and a lookup, used in at most 4 rounds",
        "ages",
        {
            "answer at once": t.cued(),
            "tools": t.acted(),
            "tools that say nothing": t.acted(_no_tools),
        },
    ),
    "program-aided": Experiment(
        "the model writes an expression, a parser computes it",
        "story",
        {"answer at once": t.cued(), "program": t.programmed()},
    ),
    "tree-of-thoughts": Experiment(
        "make 10 of three numbers: propose, judge, keep the best; beside trying at random",
        "make",
        {
            "1 try": t.tried(1),
            "4 tries": t.tried(4),
            "8 tries": t.tried(8),
            "tree of width 1": t.searched(1),
            "tree of width 2": t.searched(2),
            "tree of width 3": t.searched(3),
        },
    ),
}
HINTS, ATTACKS, ALL = "directional-stimulus", "injection", "all"
# What trains models of its own.
OWN = {
    HINTS: "a small policy writes a hint, learnt by PPO; a frozen model answers",
    ATTACKS: "injection and leaking before and after supervised tuning and PPO",
}
NAMES = (*EXPERIMENTS, *OWN)


def run(
    name: str, speaker: Speaker, n: int, seed: int
) -> tuple[list[Row], dict[str, list[Answered]]]:
    """Let every arm of an experiment answer the same questions.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    speaker : Speaker
    n : int
        Questions; of facts in the weights at most as many as there are.
    seed : int
        Of the questions.

    Returns
    -------
    rows : list of dict
        Of each arm: `right` of `n`, `cut`, and the means of calls, tokens read and written.
    answers : dict
        By arm, what was answered.
    """
    experiment = EXPERIMENTS[name]
    asked = questions(experiment.family, n, seed)
    answers = {
        arm: answer_all(speaker, technique, asked) for arm, technique in experiment.arms.items()
    }
    return [row(name, arm, found) for arm, found in answers.items()], answers


def row(name: str, arm: str, found: Sequence[Answered]) -> Row:
    """Count what an arm answered, and what that cost a question."""
    n = len(found)
    return {
        "technique": name, "arm": arm, "n": n, "right": sum(a.right for a in found),
        "cut": sum(a.cut for a in found),
        **{cost: sum(getattr(a, cost) for a in found) / n for cost in COSTS},
    }  # fmt: skip


def run_hints(speaker: Speaker, n: int, seed: int) -> tuple[list[Row], Mapping[str, Any]]:
    """Train a policy that writes hints, and compare it; return the shares of its hints, too."""
    policy = hints.trained(speaker, hints.drawn(800, seed, held_out=False), seed)
    asked = hints.drawn(n, seed)
    learnt = hints.written(policy, asked)
    said = {
        "answer at once": ["answer"] * len(asked),
        "hints before PPO": hints.written(speaker, asked),
        "hints after PPO": learnt,
    }
    rows = [row(HINTS, arm, hints.answered_with(speaker, asked, h)) for arm, h in said.items()]
    reach = hints.best_of_all(speaker, asked)
    rows.append(
        {"technique": HINTS, "arm": "any hint (an oracle)", "n": len(reach), "right": sum(reach)}
    )
    return rows, hints.shares(learnt, asked)


def run_attacks(n: int, seed: int) -> list[Row]:
    """Train the three models, attack each in all ways, and ask the benign twins."""
    groups = {
        "demonstrated": (attacks.DEMONSTRATED, False), "rewarded": (attacks.REWARDED, False),
        "held out": (attacks.HELD_OUT, False), "benign": (range(len(attacks.LEAKS)), True),
    }  # fmt: skip
    found = []
    for stage, model in attacks.trained(seed).items():
        for group, (ways, benign) in groups.items():
            asked = attacks.cases(2 * n, tuple(ways), f"evaluation {seed}", benign=benign)
            for kind in ("leak", "injection"):
                counted = attacks.count(model, [c for c in asked if c.kind == kind], seed=seed)
                found.append(
                    {"technique": ATTACKS, "kind": kind, "stage": stage, "group": group}
                    | dataclasses.asdict(counted)
                )
    return found


# --- the command ---------------------------------------------------------------------------------


def prompt(
    name: str,
    *,
    model: str = "",
    n: int = 200,
    seed: int = 0,
    show: int = 0,
    json_file: str = "",
    quiet: bool = False,
) -> int:
    """Run an experiment, and print its table.

    Parameters
    ----------
    name : str
        One of `NAMES`, or "all"; empty: list them.
    model : str
        A folder in Hugging Face's layout; empty: the one of `RUN`, trained if it is not there.
    n : int
        Questions.
    seed : int
        Of questions and samples.
    show : int
        Questions whose calls and replies are printed.
    json_file : str
        Stores the rows.
    quiet : bool
        No progress bar.

    Returns
    -------
    int
        Exit code, 0.

    Raises
    ------
    ValueError
        If the technique, the model or a number is wrong.
    """
    if not name:
        for known in NAMES:
            print(f"{known:<22}{about(known)}")
        return 0
    if name not in (*NAMES, ALL):
        refuse("technique", f"one of {', '.join(NAMES)}, or {ALL}", repr(name))
    if n < 2:
        refuse("questions", "at least 2", str(n))
    names = NAMES if name == ALL else (name,)
    console = Console()
    rows: list[Row] = []
    speaker = _speaker(model, seed, names, quiet)
    for each in names:
        if each == ATTACKS:
            found = run_attacks(n, seed)
            console.print(table_of_attacks(found))
        elif each == HINTS:
            found, given = run_hints(_expected(speaker), n, seed)
            console.print(table(each, found))
            console.print(f"hints after PPO: {_written(given)}")
        else:
            found, answers = run(each, _expected(speaker), n, seed)
            console.print(table(each, found))
            for arm, answered in answers.items():
                _show(console, arm, answered[:show])
        rows += found
    if json_file:
        write_whole(json_file, json_lines([provenance("torch"), *rows]))
    return 0


def _speaker(model: str, seed: int, names: Sequence[str], quiet: bool) -> Speaker | None:
    """Return who is asked, unless nobody is."""
    if set(names) == {ATTACKS}:
        return None
    if model:
        return load_speaker(Path(model), seed)
    speaker = teach(Path(RUN), quiet=quiet)
    speaker.seed = seed
    return speaker


def _expected(speaker: Speaker | None) -> Speaker:
    assert speaker is not None
    return speaker


def about(name: str) -> str:
    """Say in a line what a technique is."""
    return EXPERIMENTS[name].about if name in EXPERIMENTS else OWN[name]


def table(name: str, rows: Sequence[Row]) -> Table:
    """Lay an experiment out for a terminal."""
    shown = Table("arm", "right", "95%", "n", "calls", "read", "written")
    shown.title = f"{name}: {about(name)}"
    for found in rows:
        shown.add_row(found["arm"], *cells(found))
    return shown


def cells(found: Row) -> list[str]:
    """Write an arm's accuracy and costs."""
    costs = [f"{found[cost]:.1f}" if cost in found else "" for cost in COSTS]
    return [*share(found["right"], found["n"]), str(found["n"]), *costs]


def share(right: int, n: int) -> tuple[str, str]:
    """Write a share and its interval."""
    low, high = wilson(right, n)
    return f"{right / n:.3f}", f"{low:.3f} to {high:.3f}"


def table_of_attacks(rows: Sequence[Row]) -> Table:
    """Lay out what became of attacks and their benign twins."""
    shown = Table("attack", "ways", "model", "violated", "95%", "as wanted", "refused", "n")
    shown.title = f"{ATTACKS}: {about(ATTACKS)}"
    for found in rows:
        n = found["n"]
        shown.add_row(
            found["kind"], found["group"], found["stage"], *share(found["violated"], n),
            f"{found['wanted'] / n:.3f}", f"{found['refused'] / n:.3f}", str(n),
        )  # fmt: skip
    return shown


def _written(given: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(
        f"{family}: {', '.join(f'{hint} {part:.0%}' for hint, part in parts.items())}"
        for family, parts in given.items()
    )


def _show(console: Console, arm: str, answered: Sequence[Answered]) -> None:
    for found in answered:
        console.print(f"[{arm}] {found.question.text}", markup=False)
        for asked, reply in found.talk:
            console.print(f"    {asked}  →  {reply}", markup=False)
        verdict = "right" if found.right else f"wrong: {found.question.answer}"
        console.print(f"    answer: {found.answer or 'none'} ({verdict})", markup=False)
