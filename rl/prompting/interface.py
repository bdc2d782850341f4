"""What a prompting technique is: a generator that asks a model, and ends in an answer.

    def chain_of_thought(question):
        (said,) = yield Call(f"{question.text} steps")
        return last_answer(said.text)

It yields calls, gets back what the model said to each, and returns its answer. So a technique reads
as its paper tells it, for one question; `answer_all` runs it for many, lets the calls that are due
at the same time go to the model as one batch, and counts them. Two techniques are compared at equal
cost by these counts.

An empty answer is wrong. What the model's limit cut off is read as far as it goes, and counted
(`Answered.cut`): it is never taken for an answer that ended by itself.
"""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ...core.checks import expect_positive, refuse

LIMIT = 12  # tokens that a reply may have, unless a call says otherwise


@dataclasses.dataclass(frozen=True)
class Question:
    """Something to be answered, and the answer.

    Attributes
    ----------
    family : str
        What kind of question it is.
    text : str
        As the model reads it, words apart by one space.
    answer : str
        The right one.
    documents : tuple of str
        What may be looked up, outside the model's weights.
    ages : mapping of str to str
        What the tool `lookup` finds.
    numbers : tuple of int
        What a search starts from.
    path : tuple of str
        The steps that lead to the answer.
    """

    family: str
    text: str
    answer: str
    documents: tuple[str, ...] = ()
    ages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    path: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Call:
    """A prompt that a model is to continue.

    Attributes
    ----------
    prompt : str
    n : int
        Continuations, each a call by itself where calls are counted.
    temperature : float
        0 takes the likeliest token; with n above 1 it must be above 0.
    limit : int
        Tokens of a continuation at most.
    """

    prompt: str
    n: int = 1
    temperature: float = 0.0
    limit: int = LIMIT

    def __post_init__(self) -> None:
        expect_positive("n", self.n)
        expect_positive("limit", self.limit)
        if self.n > 1 and self.temperature <= 0:
            cause = "every reply would be the likeliest one: name a temperature"
            refuse("temperature", f"above 0 for {self.n} replies", f"{self.temperature:g}", cause)


class Said(NamedTuple):
    """One reply.

    Attributes
    ----------
    text : str
        Without the end token.
    log_prob : float
        Of all its tokens, the end token among them, at the temperature they were drawn at.
    n_read, n_written : int
        Tokens of the prompt, and of the reply.
    ended : bool
        Whether the model ended it, and not the limit.
    """

    text: str
    log_prob: float
    n_read: int
    n_written: int
    ended: bool


Technique = Callable[[Question], Generator[Call, list[Said], str]]


class Model(Protocol):
    """Who replies."""

    def say(self, calls: Sequence[Call]) -> list[list[Said]]:
        """Reply to each call as often as it asks."""


@dataclasses.dataclass
class Answered:
    """A question with the answer that a technique came to, and what that cost.

    Attributes
    ----------
    question : Question
    answer : str
    calls, n_read, n_written : int
        Replies asked for; tokens that they read and wrote.
    cut : int
        Replies that did not end.
    talk : list of (str, str)
        Each prompt with its reply, in order.
    """

    question: Question
    answer: str = ""
    calls: int = 0
    n_read: int = 0
    n_written: int = 0
    cut: int = 0
    talk: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether the answer is the right one, word for word."""
        return bool(self.answer) and self.answer.split() == self.question.answer.split()

    def note(self, call: Call, replies: Sequence[Said]) -> None:
        """Count a call's replies."""
        self.calls += len(replies)
        self.n_read += sum(said.n_read for said in replies)
        self.n_written += sum(said.n_written for said in replies)
        self.cut += sum(not said.ended for said in replies)
        self.talk += [(call.prompt, said.text) for said in replies]


def answer_all(model: Model, technique: Technique, questions: Sequence[Question]) -> list[Answered]:
    """Let a technique answer questions, as many side by side as there are.

    Parameters
    ----------
    model : Model
    technique : callable
    questions : sequence of Question

    Returns
    -------
    list of Answered
        In the order of the questions.
    """
    found = [Answered(question) for question in questions]
    going = {i: technique(question) for i, question in enumerate(questions)}
    replies: dict[int, list[Said] | None] = dict.fromkeys(going)
    while going:
        calls: dict[int, Call] = {}
        for i, generator in list(going.items()):
            try:
                # A generator is begun by sending it None.
                calls[i] = generator.send(replies[i])  # type: ignore[arg-type]
            except StopIteration as done:
                found[i].answer = done.value
                del going[i]
        said_to_all = model.say(list(calls.values())) if calls else []
        for (i, call), said in zip(calls.items(), said_to_all, strict=True):
            found[i].note(call, said)
            replies[i] = said
    return found
