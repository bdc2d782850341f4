"""Which examples make up step i: a function of the seed and i, and of nothing else.

There is no iterator whose position could be lost: step i of a run draws the same examples whether
the run was stopped before it or not, on however many ranks. That is the whole data cursor.
"""

import dataclasses
import itertools
from collections.abc import Sequence, Sized
from typing import Generic, TypeVar

import numpy as np
import torch

from ...core.checks import expect_positive, refuse
from .dialogue import Encoded

IGNORED = -100
Example = TypeVar("Example")


Sized_ = TypeVar("Sized_", bound=Sized)


@dataclasses.dataclass(frozen=True)
class Shuffled(Generic[Example]):
    """Examples in an order that is drawn anew for every pass over them.

    Attributes
    ----------
    examples : sequence
        All of them; at least as many as a batch.
    batch_size : int
        Examples a step, over all ranks. What is left at the end of a pass is in a later one.
    seed : int
        Of the orders.
    name : str
        Of the setting that a batch's size is, for the error.
    """

    examples: Sequence[Example]
    batch_size: int
    seed: int
    name: str = "batch_size"

    def __post_init__(self) -> None:
        """Refuse a batch that the examples cannot fill."""
        expect_positive(self.name, self.batch_size)
        n = len(self.examples)
        if n < self.batch_size:
            refuse(self.name, f"at most {n}, the examples to train on", f"{self.batch_size}")

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass."""
        return len(self.examples) // self.batch_size

    def batch(self, index: int) -> list[Example]:
        """Return the examples of step `index`, from 0."""
        epoch, place = divmod(index, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.examples))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return [self.examples[i] for i in chosen]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of running text, drawn anywhere.

    Attributes
    ----------
    tokens : numpy.ndarray of int [token]
        The text.
    time : int
        Tokens that a window predicts; it holds one more.
    batch_size : int
        Windows a step, over all ranks.
    seed : int
        Of the draw.
    name : str
        What the text is, for the error.
    """

    tokens: np.ndarray
    time: int
    batch_size: int
    seed: int
    name: str = "tokens"

    def __post_init__(self) -> None:
        """Refuse a text that is shorter than one window."""
        if len(self.tokens) <= self.time:
            expected = f"more than {self.time} tokens, one window"
            refuse(self.name, expected, f"{len(self.tokens)}", "too short a text for this time")

    def batch(self, index: int) -> list[Encoded]:
        """Return the windows of step `index`, from 0."""
        rng = np.random.default_rng((self.seed, index))
        starts = rng.integers(0, len(self.tokens) - self.time, self.batch_size)
        return [self.window(start) for start in starts]

    def window(self, start: int) -> Encoded:
        """Return the window that begins at token `start`."""
        tokens = self.tokens[start : start + self.time + 1].tolist()
        return Encoded(tokens, [True] * len(tokens))

    def all(self, at_most: int) -> list[Encoded]:
        """Return windows side by side from the beginning, for validation."""
        last = len(self.tokens) - self.time
        return [self.window(start) for start in range(0, last, self.time)][:at_most]


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Conversations with windows of running text beside them.

    Attributes
    ----------
    conversations : Shuffled
    windows : Windows
        Its batch is added to each of theirs.
    """

    conversations: Shuffled[Encoded]
    windows: Windows

    def batch(self, index: int) -> list[Encoded]:
        """Return the examples of step `index`, from 0."""
        return [*self.conversations.batch(index), *self.windows.batch(index)]


def collate(examples: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Put examples side by side, for predicting each token from those before it.

    Padding is on the right: a causal model's tokens never see what comes after them, so no mask is
    needed, and padding predicts nothing that counts.

    Parameters
    ----------
    examples : sequence of Encoded
        At least one; each of at least two tokens.
    pad : int
        Id of the padding token.

    Returns
    -------
    tokens : torch.Tensor of int64 [batch, time]
        What the model reads.
    targets : torch.Tensor of int64 [batch, time]
        What it should say next; `IGNORED` where nothing counts.
    """
    time = max(len(example.tokens) for example in examples) - 1
    tokens = torch.full((len(examples), time), pad)
    targets = torch.full((len(examples), time), IGNORED)
    for row, example in enumerate(examples):
        n = len(example.tokens) - 1
        ids = torch.tensor(example.tokens)
        tokens[row, :n] = ids[:-1]
        targets[row, :n] = torch.where(torch.tensor(example.trained)[1:], ids[1:], IGNORED)
    return tokens, targets


def split_by_length(examples: Sequence[Sized_], parts: int) -> list[list[Sized_]]:
    """Cut a batch into micro-batches, each of examples alike in length: so little is padding.

    Parameters
    ----------
    examples : sequence
        To be cut; `len` says how long each is.
    parts : int
        How many, of as equal a number of examples as can be; some are empty if there are fewer.

    Returns
    -------
    list of list
        The shortest first.
    """
    ordered = sorted(examples, key=len)
    bounds = [len(ordered) * i // parts for i in range(parts + 1)]
    return [ordered[first:end] for first, end in itertools.pairwise(bounds)]
