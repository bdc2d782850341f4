"""What Sparrow learns from: rankings of the base's answers, and labels of one rule each.

Both from the same place: the base answers questions of the world, and people say what they think.
For a preference they rank several answers by how helpful they find them. For a rule they see one
rule and try to have that one broken, so that the label speaks of it alone; of a third of the
questions another rule is asked about than the one that they tempt to break, so that a classifier
must read which.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...data.dialogue import Template
from ...data.rankings import Ranking
from ...data.records import Label, Preference
from ...data.sources import Prompt, exercise_prompts
from ...data.tasks import Exercise, gold, rank
from ...stages.generation import generate
from ..world.labels import rule_label
from ..world.probes import benign, probe, probes
from ..world.rules import HOUSE, Rule
from ..world.users import HONEST, User
from .rule_model import RuleLabel

ANSWERED_AT_ONCE = 256
ANOTHER_RULE = 1 / 3
DRAWS = 40  # times as many answers as labels are wanted, at most


def answers(
    model: GPT,
    template: Template,
    prompts: Sequence[Prompt],
    *,
    max_response: int,
    seed: int = 0,
    temperature: float = 1.0,
) -> list[list[int]]:
    """Answer each prompt once.

    Parameters
    ----------
    model : GPT
    template : Template
    prompts : sequence of Prompt
    max_response : int
        Tokens an answer may have.
    seed : int
        Of sampling.
    temperature : float

    Returns
    -------
    list of list of int
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))  # little padding
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), ANSWERED_AT_ONCE):
        part = order[start : start + ANSWERED_AT_ONCE]
        said = generate(
            model, [prompts[i].ids for i in part], max_new_tokens=max_response,
            temperature=temperature, stop_tokens=(template.end,), seed=seed, rows=part,
        )  # fmt: skip
        for i, response in zip(part, said.token_lists(), strict=True):
            found[i] = response
    return found


# --- preferences ---------------------------------------------------------------------------------


def rankings(
    model: GPT,
    template: Template,
    exercises: Iterable[Exercise],
    k: int,
    noise: float,
    *,
    max_response: int,
    seed: int = 0,
) -> list[Ranking]:
    """Let the base answer each exercise `k` times, and rank the answers by noisy gold.

    Parameters
    ----------
    model : GPT
    template : Template
    exercises : iterable of Exercise
    k : int
        Answers to each; equal ones are one, and an exercise whose answers are all equal is left
        out.
    noise : float
        As in `tasks.rank`.
    max_response, seed : int

    Returns
    -------
    list of Ranking
        With their golds.
    """
    rng = Random(f"sparrow rankings {seed}")
    prompts = exercise_prompts(template, exercises)
    repeated = [prompt for prompt in prompts for _ in range(k)]
    said = answers(model, template, repeated, max_response=max_response, seed=seed)
    found = []
    for i, prompt in enumerate(prompts):
        different = list(dict.fromkeys(map(tuple, said[k * i : k * (i + 1)])))
        if len(different) < 2 or prompt.exercise is None:
            continue
        golds = [gold(prompt.exercise, template.text(response)) for response in different]
        ranks = rank(golds, rng, noise)
        found.append(Ranking(prompt.ids, [list(r) for r in different], ranks, golds))
    return found


def rankings_of(records: Iterable[Preference], template: Template) -> list[Ranking]:
    """Return the user's own preferences as rankings."""
    return [
        Ranking(
            template.prompt(record.prompt), [template.response(t) for t in record.completions],
            list(record.ranks),
        )
        for record in records
    ]  # fmt: skip


# --- labels of rules -----------------------------------------------------------------------------


def asked_about(
    book: Sequence[Rule], seed: object, *, held_out: bool = False
) -> Iterator[tuple[Exercise, Rule]]:
    """Draw a question with the one rule that its answer is to be judged by, without end.

    Parameters
    ----------
    book : sequence of Rule
        Each kind is drawn as often.
    seed : object
    held_out : bool
        As in `tasks.exercises`.

    Yields
    ------
    exercise, rule : Exercise, Rule
        A probe of the rule, its benign twin, or a probe of another rule that holds everywhere.
    """
    rng = Random(f"sparrow asks {seed} {held_out}")
    kinds = list(dict.fromkeys(rule.kind for rule in book))
    for kind in itertools.cycle(kinds):
        rule = rng.choice([rule for rule in book if rule.kind == kind])
        drawn = probe(rule, rng, (rule,))
        exercise = drawn.exercise if rng.random() < 0.5 else drawn.twin
        if exercise.is_held_out() != held_out:
            continue
        others = [r for r in book if r != rule and r.applies(exercise.messages)]
        if others and rng.random() < ANOTHER_RULE:
            rule = rng.choice(others)
        yield exercise, rule


def rule_labels(
    model: GPT,
    template: Template,
    asked: Iterator[tuple[Exercise, Rule]],
    n: int,
    *,
    max_response: int,
    seed: int = 0,
    user: User = HONEST,
) -> list[RuleLabel]:
    """Let the base answer, and a user label, until half of the labels say broken and half kept.

    Parameters
    ----------
    model : GPT
    template : Template
    asked : iterator of (Exercise, Rule)
        Such as `asked_about`.
    n : int
        Labels wanted; at least 2.
    max_response, seed : int
    user : User

    Returns
    -------
    list of RuleLabel
        In random order; broken and kept differ by one at most.

    Raises
    ------
    ValueError
        If the answers break a rule so seldom, or so often, that one half is not found.
    """
    found: dict[bool, list[RuleLabel]] = {True: [], False: []}
    wanted = {True: n // 2, False: n - n // 2}
    rng = Random(f"sparrow labels {seed}")
    for turn in range(DRAWS):
        part = list(itertools.islice(asked, n))
        prompts = exercise_prompts(template, [exercise for exercise, _ in part])
        said = answers(
            model, template, prompts, max_response=max_response, seed=seed * DRAWS + turn
        )
        for (exercise, rule), response in zip(part, said, strict=True):
            record = rule_label(exercise, template.text(response), rule, user)
            label = labels_of([record], template)[0]
            if len(found[label.violated]) < wanted[label.violated]:
                found[label.violated].append(label)
        if all(len(found[kind]) == wanted[kind] for kind in wanted):
            both = found[True] + found[False]
            rng.shuffle(both)
            return both
    seen = f"{len(found[True])} broken and {len(found[False])} kept"
    cause = "a base that never breaks a rule, or always"
    refuse("labels", f"{n}, half of them broken rules", f"{seen} of {DRAWS * n} answers", cause)


def labels_of(records: Iterable[Label], template: Template) -> list[RuleLabel]:
    """Return records of one rule each as the classifier reads them; 0 is a broken rule."""
    return [
        RuleLabel(
            record.rule, record.messages, template.response(record.completion), record.label == 0
        )
        for record in records
        if record.rule
    ]


def questions(seed: int, *, held_out: bool, book: Sequence[Rule] = HOUSE) -> Iterator[Exercise]:
    """Draw what people ask without end: a probe, a benign twin and an exercise in turns.

    Parameters
    ----------
    seed : int
    held_out : bool
        As in `tasks.exercises`.
    book : sequence of Rule
        In force.

    Yields
    ------
    Exercise
    """
    tempting = probes(seed, held_out=held_out, book=book)
    for ordinary in benign(seed, held_out=held_out, book=book):
        yield next(tempting).exercise
        yield next(tempting).twin
        yield ordinary
