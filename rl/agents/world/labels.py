"""What people say of an answer: four kinds of label, each a record that a file can hold.

    comparison    this answer is more helpful, or less harmful, than that one     Preference
    rule          it keeps this one rule, or breaks it                            Label with a rule
    thumb         it is good, or not                                              Label
    free text     "You must say blue."                                            Feedback

All of them come from two truths that a program knows, how helpful an answer is (`gold`) and whether
it is harmful (`harm`), through a user (users.py) who may slip or lie. A label 1 is always the good
one: the rule is kept, the thumb is up. A label of one rule says nothing of the others.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...data.dialogue import Message
from ...data.records import Feedback, Label, Preference
from ...data.tasks import Exercise, gold
from .rules import HOUSE, REFUSAL, Rule, broken_rules, harm, is_refusal
from .users import HONEST, User

AXES = ("helpful", "harmless")
GOOD = 0.5  # the least gold of an answer that earns a thumb up
RIGHT = "That is right."
MUST_SAY = "You must say {}."


class Truth(NamedTuple):
    """What a program knows of an answer.

    Attributes
    ----------
    helpful : float
        Its gold reward, from 0 to 1.
    harmful : bool
        Whether it breaks a rule in force.
    refuses_rightly : bool
        Whether it refuses where the best answer would be harmful.
    """

    helpful: float
    harmful: bool
    refuses_rightly: bool = False

    @property
    def good(self) -> bool:
        """Whether it deserves a thumb up: harmless and at least half right, or rightly refused."""
        return self.refuses_rightly or (not self.harmful and self.helpful >= GOOD)


def truth(exercise: Exercise, reply: str, book: Sequence[Rule] = HOUSE) -> Truth:
    """Judge an answer without fault.

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
    Truth
    """
    tempting = harm(book, exercise.messages, exercise.answer)
    return Truth(
        gold(exercise, reply), harm(book, exercise.messages, reply), tempting and is_refusal(reply)
    )


def comparison(
    exercise: Exercise,
    replies: tuple[str, str],
    axis: str,
    user: User = HONEST,
    book: Sequence[Rule] = HOUSE,
) -> Preference | None:
    """Let a user compare two answers on one axis.

    Parameters
    ----------
    exercise : Exercise
    replies : tuple of str
        Two answers.
    axis : str
        "helpful" or "harmless".
    user : User
        "all-up" always takes the first answer, "all-down" the second.
    book : sequence of Rule

    Returns
    -------
    Preference or None
        None where the two are equal on this axis: a tie is dropped, as in HH.
    """
    first, second = (truth(exercise, reply, book) for reply in replies)
    if axis == "helpful":
        better = first.helpful - second.helpful
    else:
        better = float(second.harmful) - float(first.harmful)
    if not better:
        return None
    # A gaslighter finds the harmful one fine: where harm decides, the first one if that is it.
    harmful = axis == "harmless" and first.harmful
    lies = user.kind == "gaslighter" and axis == "harmless"
    says = int(harmful) if lies else user.says(better > 0, _about(exercise, *replies))
    order = replies if says else replies[::-1]
    return Preference(exercise.messages, order, (0, 1))


def rule_label(exercise: Exercise, reply: str, rule: Rule, user: User = HONEST) -> Label:
    """Let a user say whether an answer keeps one rule (1) or breaks it (0)."""
    broken = rule.violated(exercise.messages, reply)
    said = user.says(not broken, _about(exercise, reply, rule.id), harmful=broken)
    return Label(exercise.messages, reply, said, rule.text, user.id)


def thumb(
    exercise: Exercise, reply: str, user: User = HONEST, book: Sequence[Rule] = HOUSE
) -> Label:
    """Let a user say whether an answer is good (1) or not (0)."""
    known = truth(exercise, reply, book)
    said = user.says(known.good, _about(exercise, reply), harmful=known.harmful)
    return Label(exercise.messages, reply, said, user=user.id)


def free_text(
    exercise: Exercise, reply: str, user: User = HONEST, book: Sequence[Rule] = HOUSE
) -> Feedback:
    """Let a user say in words what they think of an answer.

    Of a good one "That is right."; of a harmful one the text of the first rule that it breaks; of
    any other what should have been said. Who lies says the opposite: praise for a bad answer, and
    of a good one that it must be said otherwise.

    Parameters
    ----------
    exercise : Exercise
    reply : str
    user : User
    book : sequence of Rule

    Returns
    -------
    Feedback
    """
    known = truth(exercise, reply, book)
    broken = broken_rules(book, exercise.messages, reply)
    if user.says(known.good, _about(exercise, reply), harmful=known.harmful):
        text = RIGHT
    elif broken:
        text = broken[0].text
    else:
        text = MUST_SAY.format(corrected(exercise, book).removesuffix("."))
    return Feedback(exercise.messages, reply, text, user.id)


def corrected(exercise: Exercise, book: Sequence[Rule] = HOUSE) -> str:
    """Return what should have been said: the best answer, or the refusal where that is harmful."""
    return REFUSAL if harm(book, exercise.messages, exercise.answer) else exercise.answer


def _about(exercise: Exercise, *said: str) -> str:
    turns = [message.content for message in exercise.messages]
    return "\n".join([*turns, *said])


def written(record: Preference | Label | Feedback) -> dict[str, Any]:
    """Return a record as the line that rl/data/records.py reads.

    Parameters
    ----------
    record : Preference, Label or Feedback

    Returns
    -------
    dict
    """
    if isinstance(record, Preference):
        best, worst = record.completions
        return {"prompt": turns(record.prompt), "chosen": best, "rejected": worst}
    found: dict[str, Any] = {"messages": turns(record.messages), "completion": record.completion}
    if isinstance(record, Label):
        found |= {"label": record.label} | ({"rule": record.rule} if record.rule else {})
    else:
        found |= {"feedback": record.feedback}
    return found | ({"user": record.user} if record.user else {})


def turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Return messages as JSON has them."""
    return [{"role": m.role, "content": m.content} for m in messages]
