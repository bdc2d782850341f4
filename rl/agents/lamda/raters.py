"""Who rates responses for LaMDA, and the rows that a model learns to rate from.

What the raters should say, by a program:

    sensible      half right at least, or the refusal, which always makes sense
    specific      sensible, and wrong for other exercises of its family: the refusal never is
    interesting   specific, and with a true extra nobody asked for: a third member of a list
    unsafe        it breaks a rule in force

Each label is a vote: 3 of 5 raters for quality, 2 of 3 for safety, each wrong with some error. To
refuse always is sensible and safe, and earns 3 of the 5 points: this is why specificity exists.
"""

import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from ....core.dialogue.lamda import consistent, majority, safe_label
from ...data.dialogue import Encoded, Message, Template
from ...data.records import Label
from ...data.tasks import CATEGORIES, FAMILIES, LISTED, Exercise, gold
from ..base import ATTRIBUTES, RATINGS
from ..world.labels import GOOD, truth
from ..world.rules import HOUSE, Rule, is_refusal, words_of

OTHERS = 4  # exercises of its family that a specific response must be wrong for
QUALITY_RATERS, QUALITY_NEEDED = 5, 3
SAFETY_RATERS, SAFETY_NEEDED = 3, 2


class Ratings(NamedTuple):
    """What is said of a response, each 0 or 1."""

    sensible: int
    specific: int
    interesting: int
    unsafe: int


def true_ratings(exercise: Exercise, reply: str, book: Sequence[Rule] = HOUSE) -> Ratings:
    """Rate a response without fault.

    Parameters
    ----------
    exercise : Exercise
        What was asked.
    reply : str
        What was answered.
    book : sequence of Rule
        In force.

    Returns
    -------
    Ratings
    """
    known = truth(exercise, reply, book)
    sensible = known.helpful >= GOOD or is_refusal(reply)
    specific = not is_refusal(reply) and all(
        gold(other, reply) < GOOD for other in itertools.islice(_others(exercise), OTHERS)
    )
    quality = consistent(int(sensible), int(specific), int(_has_extra(exercise, reply)))
    return Ratings(*quality, int(known.harmful))


def _others(exercise: Exercise) -> Iterator[Exercise]:
    """Draw exercises of the family that want another answer, the same for an exercise each time."""
    rng = Random("\n".join(m.content for m in exercise.messages))
    while True:
        other = FAMILIES[exercise.family](rng)
        if gold(other, exercise.answer) < 1:
            yield other


def _has_extra(exercise: Exercise, reply: str) -> bool:
    """Say whether a list names more members than were asked for, all of them right."""
    if exercise.family != "list":
        return False
    category = next(name for name in CATEGORIES if name in exercise.messages[-1].content)
    said = set(words_of(reply)) - {"and"}
    return len(said) > LISTED and said <= {member.lower() for member in CATEGORIES[category]}


def voted(exercise: Exercise, reply: str, rng: Random, error: float) -> Ratings:
    """Let raters vote, each wrong with a chance of `error`, independently of the others.

    Parameters
    ----------
    exercise : Exercise
    reply : str
    rng : random.Random
    error : float

    Returns
    -------
    Ratings
    """
    known = true_ratings(exercise, reply)

    def votes(right: int, n: int) -> list[int]:
        return [right ^ (rng.random() < error) for _ in range(n)]

    quality = (majority(votes(x, QUALITY_RATERS), QUALITY_NEEDED) for x in known[:3])
    safe = safe_label([votes(1 - known.unsafe, SAFETY_RATERS)], SAFETY_NEEDED)
    return Ratings(*consistent(*quality), 1 - safe)


# --- rows to learn from --------------------------------------------------------------------------


def rating_row(
    template: Template, messages: Sequence[Message], reply: str, attribute: str, rating: int
) -> Encoded:
    """Encode a rated response: the loss is on the rating alone."""
    ids = template.tokenizer.special_tokens
    said = [*template.prompt(messages), *template.response(reply)]
    tokens = [*said, ids[attribute], ids[RATINGS[rating]]]
    return Encoded(tokens, [False] * (len(tokens) - 1) + [True])


def rating_rows(
    template: Template, messages: Sequence[Message], reply: str, ratings: Ratings
) -> list[Encoded]:
    """Encode a rated response once for each attribute."""
    return [
        rating_row(template, messages, reply, attribute, rating)
        for attribute, rating in zip(ATTRIBUTES, ratings, strict=True)
    ]


def rows_of_labels(template: Template, labels: Sequence[Label]) -> list[Encoded]:
    """Encode labels of a user's file: a rule's speak of safety, thumbs of sense.

    Parameters
    ----------
    template : Template
    labels : sequence of Label

    Returns
    -------
    list of Encoded
    """
    sensible, *_, unsafe = ATTRIBUTES
    return [
        rating_row(template, label.messages, label.completion, unsafe, 1 - label.label)
        if label.rule
        else rating_row(template, label.messages, label.completion, sensible, label.label)
        for label in labels
    ]
