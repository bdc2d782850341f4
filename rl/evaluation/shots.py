"""K-shot prompts: examples with their answers before the question, and no gradient.

K examples are drawn at random from the training examples for every question (Brown et al. 2020,
section 2.4). The question's own example is never among them: a label map that is to be read from
the shots must not have the answer in it.

Where the context is too small, whole examples are dropped, the oldest (the first) first, and never
a part of one or of the question; the K that was used is reported.
"""

from collections.abc import Callable, Sequence
from random import Random

from ...core.checks import refuse
from .asking import Shot


def drawn(
    training: Sequence[Shot], k: int, question: str, seed: int, row: int = 0
) -> tuple[Shot, ...]:
    """Draw the examples to show before a question.

    Parameters
    ----------
    training : sequence of Shot
        To draw from, without replacement.
    k : int
        How many.
    question : str
        What is to be asked: an example that asks the same is left out.
    seed, row : int
        Of the draw, and the question's number in its file.

    Returns
    -------
    tuple of Shot

    Raises
    ------
    ValueError
        If there are not `k` examples of other questions.
    """
    if k < 0:
        refuse("shots", "at least 0", str(k))
    others = [shot for shot in training if shot.question != question] if k else []
    if len(others) < k:
        cause = "no training examples: name a file of them" if not training else "a smaller K"
        refuse("shots", f"at most {len(others)}, the training examples of other questions", str(k),
               cause)  # fmt: skip
    return tuple(Random(f"shots {seed} {row}").sample(others, k))


def fitted(
    shots: Sequence[Shot], needed: Callable[[Sequence[Shot]], int], room: int
) -> tuple[Shot, ...]:
    """Drop whole examples, the oldest first, until a question fits into the context.

    Parameters
    ----------
    shots : sequence of Shot
        The oldest first.
    needed : callable
        Returns how many tokens the question and its longest answer need after these shots.
    room : int
        Tokens that the model has room for.

    Returns
    -------
    tuple of Shot

    Raises
    ------
    ValueError
        If the question does not fit without examples.
    """
    for n_dropped in range(len(shots) + 1):
        kept = tuple(shots[n_dropped:])
        tokens = needed(kept)
        if tokens <= room:
            return kept
    cause = "a question that is longer than the model's context, or too long an answer"
    refuse("question", f"at most {room} tokens with its answer", str(tokens), cause)
