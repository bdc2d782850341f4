"""Questions with choices, answered by a model: every answer, and the accuracy of each score."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from .asking import Asking, Shot
from .choices import CONTENT_FREE, CONTEXT_FREE, SCORES, Asked, ChoiceScores, score_choices
from .items import ChoiceItem
from .log_probs import AT_ONCE
from .shots import drawn, fitted


@dataclasses.dataclass(frozen=True)
class ChoiceAnswer:
    """What a model made of one question.

    Attributes
    ----------
    item : ChoiceItem
    shots : tuple of Shot
        Those that fitted.
    scores : ChoiceScores
    """

    item: ChoiceItem
    shots: tuple[Shot, ...]
    scores: ChoiceScores

    def is_right(self, method: str) -> bool:
        """Say whether a score prefers the right choice."""
        return self.scores.pick(method) == self.item.answer

    def record(self, methods: Sequence[str]) -> dict[str, Any]:
        """Return it for JSON."""
        return dataclasses.asdict(self.item) | {
            "shots": len(self.shots),
            "scores": {method: self.scores.scores(method).tolist() for method in methods},
            "picked": {method: self.scores.pick(method) for method in methods},
            "right": {method: self.is_right(method) for method in methods},
        }


def answer_choices(
    model: GPT,
    asking: Asking,
    items: Sequence[ChoiceItem],
    *,
    training: Sequence[Shot] = (),
    shots: int = 0,
    seed: int = 0,
    methods: Sequence[str] = SCORES,
    context_free: str = CONTEXT_FREE,
    content_free: Sequence[str] = CONTENT_FREE,
    at_once: int = AT_ONCE,
) -> list[ChoiceAnswer]:
    """Let a model choose.

    Parameters
    ----------
    model : GPT
    asking : Asking
    items : sequence of ChoiceItem
    training : sequence of Shot
        Examples to draw from.
    shots : int
        K, the most examples before a question.
    seed : int
        Of the draw.
    methods, context_free, content_free, at_once
        As in `score_choices`.

    Returns
    -------
    list of ChoiceAnswer

    Raises
    ------
    ValueError
        If a question does not fit, by its line; or as in `score_choices`.
    """
    room = model.config.n_ctx + 1  # an answer's last token is not read
    without = content_free if "calibrated" in methods else ()
    chosen = []
    for row, item in enumerate(items):

        def needed(kept: Sequence[Shot], item: ChoiceItem = item) -> int:
            questions = (item.question, *without)
            requests = [asking.request(kept, q, c) for q in questions for c in item.choices]
            return max(len(request.context) + len(request.continuation) for request in requests)

        try:
            chosen.append(fitted(drawn(training, shots, item.question, seed, row), needed, room))
        except ValueError as error:
            raise at_line(item.line, error) from None
    asked = [Asked(i.question, i.choices, kept) for i, kept in zip(items, chosen, strict=True)]
    scored = score_choices(
        model, asking, asked, methods=methods, context_free=context_free,
        content_free=content_free, at_once=at_once,
    )  # fmt: skip
    return [ChoiceAnswer(*found) for found in zip(items, chosen, scored, strict=True)]


def at_line(line: int, error: ValueError) -> ValueError:
    """Return the error with the line of the question that it is about."""
    return ValueError(f"line {line}: {error}")


def chance(items: Sequence[ChoiceItem]) -> float:
    """Return the accuracy of a guess."""
    if not items:
        refuse("items", "a question at least", "none")
    return sum(1 / len(item.choices) for item in items) / len(items)
