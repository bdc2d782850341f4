"""Every technique on several seeds, looked into: what a table of accuracies does not show.

By the number of steps, for chain of thought; votes beside what theory says of them; the stages of a
chain, and the hits of a search.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..judging.intervals import wilson
from ..judging.plots import plt, saved
from ..prompting import attacks, corpus, hints
from ..prompting.corpus import questions, teach
from ..prompting.facts import retrieve
from ..prompting.interface import Answered, Call, Question
from ..prompting.puzzles import HOPS, graded_steps
from ..prompting.speaker import Speaker
from ..prompting.techniques import last_answer
from ..prompting.voting import majority, majority_accuracy
from .techniques import EXPERIMENTS, Row, run, run_attacks, run_hints

ASKED = 200
VOTED_ON, REPLIES = 60, 40  # questions that votes are counted of, and replies to each
VOTES = (1, 2, 3, 5, 10, 20, 40)
TEMPERATURES = (0.5, 1.0, 1.5)


def measure(seed: int, directory: Path, n: int = ASKED) -> list[Row]:
    """Train the models of a seed, and run every technique.

    Parameters
    ----------
    seed : int
        Of the models, the questions and the samples.
    directory : pathlib.Path
        Of the run.
    n : int
        Questions of each technique.

    Returns
    -------
    list of dict
    """
    speaker = teach(directory / f"prompted-{seed}", seed, quiet=True)
    rows: list[Row] = []
    for name in EXPERIMENTS:
        found, answers = run(name, speaker, n, seed)
        rows += [*found, *details(name, answers)]
    rows += votes(speaker, questions("links", VOTED_ON, seed))
    found, given = run_hints(speaker, n, seed)
    rows += [*found, {"technique": "directional-stimulus", "hints": given}]
    return [{"seed": seed} | row for row in [*rows, *run_attacks(n // 2, seed)]]


def details(name: str, answers: Mapping[str, Sequence[Answered]]) -> list[Row]:
    """Look into what the arms of an experiment answered."""
    if name == "chain-of-thought":
        rows = [
            {"technique": name, "arm": arm, "hops": hops, "right": right, "n": n}
            for arm, found in answers.items()
            for hops, (right, n) in by_hops(found).items()
        ]
        graded = [graded_steps(a.question, a.talk[0][1]) for a in answers["steps"]]
        right, n = (sum(part) for part in zip(*graded, strict=True))
        return [*rows, {"technique": name, "arm": "each step", "hops": 0, "right": right, "n": n}]
    if name == "chaining":
        return [
            {"technique": name, "stage": s} | c for s, c in stages(answers["one after the other"])
        ]
    if name == "retrieval":
        return [
            hits(name, arm, int(arm.split()[1]), found)
            for arm, found in answers.items()
            if arm.startswith("best")
        ]
    return []


def by_hops(found: Sequence[Answered]) -> dict[int, tuple[int, int]]:
    """Count the right answers by the number of hops: right, and how many there were."""
    counts: dict[int, tuple[int, int]] = {}
    for answered in found:
        hops = len(answered.question.path) - 1
        right, n = counts.get(hops, (0, 0))
        counts[hops] = (right + answered.right, n + 1)
    return dict(sorted(counts.items()))


def stages(found: Sequence[Answered]) -> list[tuple[str, Row]]:
    """Count how often each stage of a chain does its own task on what it is given."""
    first, second = 0, 0
    for answered in found:
        words = answered.question.text.split()
        said, then = (reply for _, reply in answered.talk)
        first += said.split() == words[::-1]
        second += then.split() == said.split()[1:2]
    n = len(found)
    return [("reverse", {"right": first, "n": n}), ("second", {"right": second, "n": n})]


def hits(name: str, arm: str, k: int, found: Sequence[Answered]) -> Row:
    """Count how often the right document is among the k, and is then answered from."""
    hit = [_tells(a.question) in retrieve(a.question.text, a.question.documents, k) for a in found]
    right = sum(h and a.right for h, a in zip(hit, found, strict=True))
    return {
        "technique": name,
        "arm": arm,
        "hits": sum(hit),
        "right of hits": right,
        "n": len(found),
    }


def _tells(question: Question) -> str:
    return f"{question.text.split()[-1]} keeps {question.answer}"


def votes(speaker: Speaker, asked: Sequence[Question]) -> list[Row]:
    """Let replies vote in groups of n, and say what theory expects of them.

    Theory knows each question's answers by their shares among all replies, and that each reply is
    drawn by itself; it knows nothing of how the groups turned out. A reply without an answer has no
    vote in a group, and counts as one more wrong answer in theory.
    """
    rows = []
    for temperature in TEMPERATURES:
        calls = [Call(f"{q.text} steps", REPLIES, temperature) for q in asked]
        said = [[last_answer(r.text) for r in replies] for replies in speaker.say(calls)]
        for n in VOTES:
            right = groups = 0
            expected = 0.0
            for question, answers in zip(asked, said, strict=True):
                for start in range(0, REPLIES - n + 1, n):
                    right += majority(answers[start : start + n]) == question.answer
                    groups += 1
                expected += in_theory(question.answer, answers, n)
            rows.append(
                {
                    "technique": "self-consistency", "temperature": temperature, "votes": n,
                    "right": right, "n": groups, "theory": expected / len(asked),
                }
            )  # fmt: skip
    return rows


def in_theory(right: str, answers: Sequence[str], n: int) -> float:
    """Return what a majority of n is worth, if replies are drawn like these."""
    shares = {answer: count / len(answers) for answer, count in Counter(answers).items()}
    return majority_accuracy(shares.pop(right, 0.0), list(shares.values()), n)


# --- pictures ------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy over hops, votes beside theory, and search over its calls."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3))
    for arm in EXPERIMENTS["chain-of-thought"].arms:
        _line(axes[0], HOPS, [_of(rows, arm=arm, hops=k) for k in HOPS], arm)
    axes[0].set(title="chain of thought", xlabel="hops")
    axes[0].set_xticks(HOPS)
    for temperature in TEMPERATURES:
        groups = [_of(rows, temperature=temperature, votes=n) for n in VOTES]
        _line(axes[1], VOTES, groups, f"temperature {temperature:g}")
        theory = [sum(row["theory"] for row in group) / len(group) for group in groups]
        axes[1].plot(VOTES, theory, "k--", linewidth=0.7)
    axes[1].set(title="self-consistency; dashed: in theory", xlabel="votes", xscale="log")
    axes[1].set_xticks(VOTES, [str(n) for n in VOTES])
    searches = list(EXPERIMENTS["tree-of-thoughts"].arms)
    for label in ("tree", "tries"):
        arms = [arm for arm in searches if arm.startswith("tree") == (label == "tree")]
        groups = [_of(rows, technique="tree-of-thoughts", arm=arm) for arm in arms]
        calls = [sum(row["calls"] for row in group) / len(group) for group in groups]
        _line(axes[2], calls, groups, label)
    axes[2].set(title="make 10 of three numbers", xlabel="calls a question, mean")
    for axis in axes:
        axis.title.set_fontsize(9)
        axis.xaxis.label.set_fontsize(8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(0, 1.02)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("right", fontsize=8)
    saved(figure, path)


def _of(rows: Sequence[Row], **which: Any) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in which.items())]


def _line(axis: Any, at: Sequence[float], groups: Sequence[Sequence[Row]], label: str) -> None:
    """Draw the pooled share of each group of rows, with its interval."""
    counts = [(sum(r["right"] for r in group), sum(r["n"] for r in group)) for group in groups]
    shares = [right / n for right, n in counts]
    ends = [wilson(right, n) for right, n in counts]
    below = [max(s - low, 0) for s, (low, _) in zip(shares, ends, strict=True)]
    above = [max(high - s, 0) for s, (_, high) in zip(shares, ends, strict=True)]
    axis.errorbar(at, shares, [below, above], marker=".", linewidth=1, capsize=2, label=label)


def about() -> dict[str, Any]:
    """Say what the study was made with."""
    made: dict[str, Any] = {
        "corpus": corpus.SMALL, "hints": hints.PPO, "attacks base": attacks.BASE,
        "attacks sft": attacks.SFT, "attacks ppo": attacks.PPO,
    }  # fmt: skip
    return {name: dataclasses.asdict(settings) for name, settings in made.items()}
