"""Questions that need steps: links to be followed, small stories with their programs, a search.

    start bade go 2 answer     kilo
    start bade go 2 steps      bade muna kilo answer kilo
    start bade go 2 filler     . . . answer kilo

What stands behind the question is the model's cue: it has learnt each of them from documents, as a
small model must. (That "let's think step by step" works unlearnt is a matter of size.) Every name
is linked to another one, all of them in one ring that only the weights know; a step is one fact,
and what grows is how many follow one another. The filler is as long as the steps, and says nothing:
what it lacks to the steps is what their content is worth, not their length.

    bade has 4 boxes of 7 and loses 5 program             4 * 7 - 5
    from 2 3 4 move                                       2 * 3     any move that is allowed
    from 4 6 value                                        sure      10 can be made, or: impossible
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from .calculator import calculate
from .interface import Question

HOPS = (1, 2, 3, 4, 5, 6)
GOAL = 10
JUDGED = ("impossible", "sure")
SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "ri", "so", "ta", "vu")
NAMES = tuple(a + b for a, b in itertools.product(SYLLABLES, repeat=2) if a != b)


class Document(NamedTuple):
    """What the model reads, and what it has to write after it."""

    prompt: str
    reply: str


# --- links ---------------------------------------------------------------------------------------


RING = Random("who is linked to whom").sample(NAMES, len(NAMES))
LINK = dict(zip(RING, [*RING[1:], RING[0]], strict=True))


def links_of(start: str, hops: int) -> Question:
    """Ask where one is after some hops; the question's `path` is where one comes by."""
    path = [start]
    for _ in range(hops):
        path.append(LINK[path[-1]])
    return Question("links", f"start {start} go {hops}", path[-1], path=tuple(path))


def draw_links(rng: Random) -> Question:
    """Draw where to start, and how far to go."""
    return links_of(rng.choice(NAMES), rng.choice(HOPS))


def documents_of_links(question: Question) -> list[Document]:
    """Return the three documents of a question of links."""
    ending = f"answer {question.answer}"
    return [
        Document(f"{question.text} answer", question.answer),
        Document(f"{question.text} steps", f"{' '.join(question.path)} {ending}"),
        Document(f"{question.text} filler", f"{' '.join('.' for _ in question.path)} {ending}"),
    ]


def graded_steps(question: Question, said: str) -> tuple[int, int]:
    """Grade each hop by itself.

    Parameters
    ----------
    question : Question
        Of links.
    said : str
        What the model wrote for its steps.

    Returns
    -------
    right, n : int
        A hop is right if it follows a link from the name that was written before it, whatever went
        wrong earlier. `n` is how many hops there should be.
    """
    written = said.partition("answer")[0].split()[: len(question.path)]
    right = sum(LINK.get(a) == b for a, b in itertools.pairwise(written))
    return right, len(question.path) - 1


# --- stories -------------------------------------------------------------------------------------


def draw_story(rng: Random) -> Question:
    """Draw a small story of three numbers."""
    name = rng.choice(NAMES)
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    kind = rng.randrange(3)
    if kind == 0:
        text, program = f"{name} has {a} boxes of {b} and finds {c}", f"{a} * {b} + {c}"
    elif kind == 1:
        c = rng.randint(1, min(9, a * b))
        text, program = f"{name} has {a} boxes of {b} and loses {c}", f"{a} * {b} - {c}"
    else:
        text, program = f"{name} has {a} red and {b} blue in {c} boxes", f"( {a} + {b} ) * {c}"
    return Question("story", text, str(calculate(program)), documents=(program,))


def documents_of_story(question: Question) -> list[Document]:
    """Return a story's answer and its program."""
    (program,) = question.documents
    return [
        Document(f"{question.text} answer", question.answer),
        Document(f"{question.text} program", program),
    ]


# --- make 10 -------------------------------------------------------------------------------------


def moves(numbers: Sequence[int]) -> Iterator[str]:
    """List the moves: a sum or a product of two numbers, or a difference that is not below 0."""
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        if i < j:
            yield f"{a} + {b}"
            yield f"{a} * {b}"
        if a >= b:
            yield f"{a} - {b}"


def moved(numbers: Sequence[int], move: str) -> tuple[int, ...] | None:
    """Make a move.

    Parameters
    ----------
    numbers : sequence of int
    move : str
        Such as "2 * 3".

    Returns
    -------
    tuple of int or None
        The numbers that are left and the result; None if the move is not allowed.
    """
    words = move.split()
    left = list(numbers)
    if len(words) != 3 or words[1] not in ("+", "-", "*"):
        return None
    for word in (words[0], words[2]):
        if not word.isdecimal() or int(word) not in left:
            return None
        left.remove(int(word))
    result = calculate(move)
    return None if result < 0 else (*left, int(result))


@functools.cache
def can_make(numbers: tuple[int, ...]) -> bool:
    """Say whether some moves lead from numbers to the goal."""
    if len(numbers) == 1:
        return numbers[0] == GOAL
    after = (moved(numbers, move) for move in moves(numbers))
    return any(can_make(left) for left in after if left is not None)


def listed(numbers: Sequence[int]) -> str:
    """Write numbers as the model reads them."""
    return f"from {' '.join(map(str, numbers))}"


def draw_search(rng: Random) -> Question:
    """Draw three numbers that make 10."""
    while True:
        numbers = tuple(rng.randint(1, 9) for _ in range(3))
        if can_make(numbers):
            return Question("make", listed(numbers), str(GOAL), numbers=numbers)


def documents_of_search(question: Question, rng: Random) -> list[Document]:
    """Return any moves from three numbers and from two, and a judgement of two.

    The moves are no better than chance, so that what a search adds is seen; half of the pairs that
    are judged can make 10.
    """
    first = rng.choice(list(moves(question.numbers)))
    left = moved(question.numbers, first)
    assert left is not None
    second = rng.choice(list(moves(left)))
    pairs = {moved(question.numbers, move) for move in moves(question.numbers)} - {None}
    wanted = rng.random() < 0.5
    judged = rng.choice(sorted(p for p in pairs if p and can_make(p) == wanted) or [left])
    return [
        Document(f"{question.text} move", first),
        Document(f"{listed(left)} move", second),
        Document(f"{listed(judged)} value", JUDGED[can_make(judged)]),
    ]
