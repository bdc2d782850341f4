r"""How a question, its answer and the examples before it become tokens: as text, or as a chat.

    Plain      What is 2 + 2? 4\n\nWhat is 3 + 1? 4        shots, a blank line between them
    Chatting   <|user|> What is 2 + 2?<|end|><|assistant|> 4<|end|><|user|> …

**The space belongs to the answer.** Byte-level BPE makes one token of a word and the space before
it, so an answer is scored with its leading space, and no context ends in one: `Plain` takes the
spaces at a question's end away. (lm-evaluation-harness moves them to the answer.)

**A context must be what its text with the answer begins with**, token by token; else log P of the
answer would be that of other tokens than the model reads. It can fail where an answer does not
begin with a space: "\n\n" is one token, and "\n\n4" may be three. Such a pair is refused by name.

**Answers that begin alike.** If " no" is a beginning of " not" in tokens, its log P is never the
lower one. Then an end must be scored too: a chat's end token always is; `Plain.end` may be "\n".
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...core.checks import refuse
from ..data.dialogue import Message, Template
from ..formats.tokenizer import Tokenizer
from ..formats.tokenizer_files import END_OF_TEXT
from .log_probs import Request

HOLE = "{question}"


class Shot(NamedTuple):
    """An example shown before the question: what is asked, and its right answer."""

    question: str
    answer: str


class Asking(Protocol):
    """A way of asking; `Plain` and `Chatting` are such."""

    def request(self, shots: Sequence[Shot], question: str, answer: str) -> Request:
        """Return an answer to be scored after its question."""

    def after(self, text: str, answer: str) -> Request:
        """Return an answer to be scored after a bare text, which asks nothing."""

    def context(self, shots: Sequence[Shot], question: str) -> list[int]:
        """Return the ids after which the model is to answer."""

    def stops(self) -> list[int]:
        """Return the ids that end an answer."""

    def text(self, ids: Sequence[int]) -> str:
        """Return an answer's ids as text, without what ended it."""


@dataclasses.dataclass(frozen=True)
class Plain:
    r"""Ask in running text.

    Attributes
    ----------
    tokenizer : Tokenizer
    template : str
        What stands around a question, `HOLE` in it; the content-free inputs take its place.
    separator : str
        Between one example and the next.
    delimiter : str
        Between a question and its answer.
    end : str
        What follows an answer and is scored with it; the first line end closes a free answer.

    Raises
    ------
    ValueError
        If the template has no place for the question.
    """

    tokenizer: Tokenizer
    template: str = HOLE
    separator: str = "\n\n"
    delimiter: str = " "
    end: str = ""

    def __post_init__(self) -> None:
        """Refuse a template without a hole."""
        if HOLE not in self.template:
            refuse("template", f"a text with {HOLE} in it", repr(self.template))

    def request(self, shots: Sequence[Shot], question: str, answer: str) -> Request:
        """Return an answer to be scored after its question."""
        return self.after(self._context(shots, question), answer)

    def after(self, text: str, answer: str) -> Request:
        """Return an answer to be scored after a bare text, which asks nothing."""
        return pair(self.tokenizer, text, self.delimiter + answer + self.end)

    def context(self, shots: Sequence[Shot], question: str) -> list[int]:
        """Return the ids after which the model is to answer."""
        return self.tokenizer.encode(self._context(shots, question)) or [_begin(self.tokenizer)]

    def stops(self) -> list[int]:
        """Return the ids that end an answer: of the document, and those that hold a line end."""
        ends = self.tokenizer.special_tokens.get(END_OF_TEXT)
        lines = [
            i for i in range(self.tokenizer.vocab_size) if b"\n" in self.tokenizer.decode_bytes([i])
        ]
        return lines if ends is None else [ends, *lines]

    def text(self, ids: Sequence[int]) -> str:
        """Return an answer's ids as text, up to the first line end."""
        special = set(self.tokenizer.special_tokens.values())
        said = self.tokenizer.decode([i for i in ids if i not in special])
        return said.partition("\n")[0].strip()

    def _context(self, shots: Sequence[Shot], question: str) -> str:
        asked = [self._asked(shot.question) + self.delimiter + shot.answer for shot in shots]
        return self.separator.join([*asked, self._asked(question)])

    def _asked(self, question: str) -> str:
        return self.template.replace(HOLE, question).rstrip(" ")


@dataclasses.dataclass(frozen=True)
class Chatting:
    """Ask as a user of a model that chats; an answer's end token is scored with it.

    Attributes
    ----------
    template : Template
    """

    template: Template

    def request(self, shots: Sequence[Shot], question: str, answer: str) -> Request:
        """Return an answer to be scored after its question."""
        return Request(self.context(shots, question), self.template.response(answer))

    def after(self, text: str, answer: str) -> Request:
        """Return an answer to be scored after a bare text: one that the user says."""
        return self.request((), text, answer)

    def context(self, shots: Sequence[Shot], question: str) -> list[int]:
        """Return the ids after which the model is to answer."""
        turns = [
            Message(role, text)
            for shot in shots
            for role, text in (("user", shot.question), ("assistant", shot.answer))
        ]
        return self.template.prompt([*turns, Message("user", question)])

    def stops(self) -> list[int]:
        """Return the end token's id."""
        return [self.template.end]

    def text(self, ids: Sequence[int]) -> str:
        """Return an answer's ids as text, up to its end token."""
        return self.template.text(ids).strip()


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> Request:
    r"""Encode a text and what follows it, cut where the text ends.

    Parameters
    ----------
    tokenizer : Tokenizer
    context : str
        Not ending in a space; if it is empty, the token that begins a document stands for it.
    continuation : str
        As a rule with its leading space.

    Returns
    -------
    Request

    Raises
    ------
    ValueError
        If the continuation is empty, the context ends in a space, or its ids are not those that
        the whole text begins with.
    """
    if not continuation:
        refuse("continuation", "a text", "''", "an empty answer, which has no token to score")
    if context.endswith(" "):
        cause = "it belongs to the answer: ' yes' is one token, ' ' and 'yes' are two"
        refuse("context", "a text that ends in no space", repr(context[-20:]), cause)
    if not context:
        return Request([_begin(tokenizer)], tokenizer.encode(continuation))
    before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
    if whole[: len(before)] != before:
        cause = "an answer without a leading space after a line end: leave the line end out"
        got = f"{context[-20:]!r}, which with {continuation[:20]!r} becomes other tokens"
        refuse("context", "a text whose tokens the text with its answer begins with", got, cause)
    return Request(before, whole[len(before) :])


def _begin(tokenizer: Tokenizer) -> int:
    """Return the id that stands for an empty context."""
    if END_OF_TEXT not in tokenizer.special_tokens:
        cause = f"there is no {END_OF_TEXT} to stand for an empty one"
        refuse("context", "a text", "''", cause)
    return tokenizer.special_tokens[END_OF_TEXT]
