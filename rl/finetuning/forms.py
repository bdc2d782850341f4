"""GPT-1's four input forms: every task as sequences between three new tokens.

    classification    <s> text <e>                                      one sequence
    entailment        <s> premise <$> hypothesis <e>                    one
    similarity        <s> a <$> b <e>   and   <s> b <$> a <e>           two, their end states added
    multiple choice   <s> context <$> answer k <e>   for every k        one for each answer

The state at the end token goes through one linear head; nothing else of the model is made for a
task. Neither order of a similar pair comes first, so both are read; adding their states gives the
same logits whichever way round the pair was given.

Special tokens begin as other new tokens do (`weights.with_vocabulary`), and a space stands before
each part, as everywhere: a word is then the same token as within a text.

A part that has no room is cut at its end: n_ctx − 2 tokens for one part, n_ctx // 2 − 2 for each
of two, as in the released code. How many were cut is counted.

Source: Radford et al. 2018, section 3.3 and figure 1; openai/finetune-transformer-lm.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

from ...core.checks import refuse
from ..data.dialogue import SPACE
from ..formats.tokenizer import Tokenizer

START, DELIMITER, CLASSIFY = "<|start|>", "<|delimiter|>", "<|classify|>"
SPECIAL_TOKENS = (START, DELIMITER, CLASSIFY)


@dataclasses.dataclass(frozen=True)
class Classification:
    """A text, and its class from 0."""

    text: str
    label: int

    def parts(self) -> list[tuple[str, ...]]:
        """Return the parts of each sequence."""
        return [(self.text,)]


@dataclasses.dataclass(frozen=True)
class Entailment:
    """A premise, a hypothesis, and whether, or how, the one follows from the other."""

    premise: str
    hypothesis: str
    label: int

    def parts(self) -> list[tuple[str, ...]]:
        """Return the parts of each sequence."""
        return [(self.premise, self.hypothesis)]


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Two texts, neither the first, and whether they mean the same."""

    a: str
    b: str
    label: int

    def parts(self) -> list[tuple[str, ...]]:
        """Return the parts of each sequence."""
        return [(self.a, self.b), (self.b, self.a)]


@dataclasses.dataclass(frozen=True)
class MultipleChoice:
    """A context, its possible answers, and the place of the right one."""

    context: str
    answers: tuple[str, ...]
    label: int

    def parts(self) -> list[tuple[str, ...]]:
        """Return the parts of each sequence."""
        return [(self.context, answer) for answer in self.answers]


Form: TypeAlias = Classification | Entailment | Similarity | MultipleChoice


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An example as tokens.

    Attributes
    ----------
    sequences : list of list of int
        One or several, each ending in the end token.
    label : int
        The right class; of a multiple choice the right sequence.
    is_choice : bool
        Whether each sequence has a logit of its own, or all share their states' sum.
    n_cut : int
        Parts that had no room.
    """

    sequences: list[list[int]]
    label: int
    is_choice: bool
    n_cut: int = 0

    def __len__(self) -> int:
        return max(map(len, self.sequences))


class Encoder:
    """Turns examples of the four forms into tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
        Must know `SPECIAL_TOKENS`.
    n_ctx : int
        Of the model.

    Raises
    ------
    ValueError
        If the tokenizer does not, or the context has no room for two parts.
    """

    def __init__(self, tokenizer: Tokenizer, n_ctx: int) -> None:
        missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.special_tokens]
        if missing:
            cause = "tokenizer.with_special_tokens(forms.SPECIAL_TOKENS) adds them"
            refuse("tokenizer", "one with the forms' special tokens", f"none for {missing}", cause)
        if n_ctx < 6:
            refuse("n_ctx", "at least 6, for two parts of a token", str(n_ctx))
        self.tokenizer, self.n_ctx = tokenizer, n_ctx
        self.start, self.delimiter, self.end = (
            tokenizer.special_tokens[token] for token in SPECIAL_TOKENS
        )

    def encode(self, example: Form) -> Labelled:
        """Encode an example.

        Parameters
        ----------
        example : Classification, Entailment, Similarity or MultipleChoice

        Returns
        -------
        Labelled
        """
        parts = example.parts()
        is_choice = isinstance(example, MultipleChoice)
        if is_choice and not (len(parts) >= 2 and 0 <= example.label < len(parts)):
            refuse("label", f"the place of one of several answers, {len(parts)} here",
                   str(example.label))  # fmt: skip
        encoded = [self._sequence(sequence) for sequence in parts]
        n_cut = sum(cut for _, cut in encoded)
        return Labelled([ids for ids, _ in encoded], example.label, is_choice, n_cut)

    def _sequence(self, parts: Sequence[str]) -> tuple[list[int], int]:
        """Return a sequence, and how many of its parts were cut."""
        room = self.n_ctx - 2 if len(parts) == 1 else self.n_ctx // 2 - 2
        ids, n_cut = [self.start], 0
        for place, part in enumerate(parts):
            tokens = self.tokenizer.encode(SPACE + part)
            n_cut += len(tokens) > room
            ids += [self.delimiter] * (place > 0) + tokens[:room]
        return [*ids, self.end], n_cut
