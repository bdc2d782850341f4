"""What is lowered: DIRECTOR's loss, and what its rivals make of the same labels.

Each objective takes the rows that are trained and says one number. Formulas and edges:
core/dialogue/director.py and cringe.py, to which these are equal.

    director       the classifier learns the labels; the generator learns language alone
    unlikelihood   bad words become less likely
    cringe         bad words become less likely than what else could be said
    language       cross-entropy alone: fine-tuning on what is good
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from ....core.checks import refuse
from ....core.dialogue.cringe import LEAST
from ....core.dialogue.director import BAD, GOOD, UNLABELLED


class Rows(NamedTuple):
    """Tokens that are trained, of a batch of examples.

    Attributes
    ----------
    g, c : torch.Tensor [row, vocab]
        Both heads' logits; c may be None where an objective has no classifier.
    targets : torch.Tensor of int64 [row]
        What was said.
    language : torch.Tensor of bool [row]
        The generator learns to say it.
    labels : torch.Tensor of int64 [row]
        1: part of a good answer, 0: of a bad one, −1: of none.
    owner : torch.Tensor of int64 [row]
        The example that each is of.
    n_examples : int
        Those without a row included.
    """

    g: torch.Tensor
    c: torch.Tensor | None
    targets: torch.Tensor
    language: torch.Tensor
    labels: torch.Tensor
    owner: torch.Tensor
    n_examples: int

    @property
    def log_p(self) -> torch.Tensor:
        """The generator's log-probability of each target, [row]."""
        return self.g.log_softmax(-1).gather(-1, self.targets[:, None])[:, 0]


Objective = Callable[[Rows], torch.Tensor]


def class_loss(rows: Rows, neutral: float) -> torch.Tensor:
    """Return the classifier's loss of each row, [row]; 0 where there is no label."""
    if rows.c is None:
        refuse("objective", "a classifier's logits", "none", "a model without a second head")
    said = rows.c.gather(-1, rows.targets[:, None])[:, 0]
    losses = -functional.logsigmoid(torch.where(rows.labels == GOOD, said, -said))
    if neutral:
        apart = (rows.c.sigmoid() - 0.5) ** 2
        others = apart.sum(-1) - apart.gather(-1, rows.targets[:, None])[:, 0]
        losses = losses + neutral * others / max(rows.c.shape[-1] - 1, 1)
    return torch.where(rows.labels == UNLABELLED, 0.0, losses)


def director_loss(
    rows: Rows, *, gamma: float = 0.5, neutral: float = 0.0, per: str = "example"
) -> torch.Tensor:
    """Compute `core.dialogue.director.director_loss`.

    Parameters
    ----------
    rows : Rows
    gamma, neutral, per
        As there.

    Returns
    -------
    torch.Tensor []
    """
    if per not in ("example", "token"):
        refuse("per", "'example' or 'token'", repr(per))
    of_language = torch.where(rows.language, -rows.log_p, 0.0)
    of_class = gamma * class_loss(rows, neutral)
    labelled = rows.labels != UNLABELLED
    if per == "token":
        n_language, n_labelled = (x.sum().clamp(min=1) for x in (rows.language, labelled))
        return of_language.sum() / n_language + of_class.sum() / n_labelled
    # An example in which nothing is trained has no row: it contributes nothing.
    counted = _of_examples(rows, (rows.language.long() + labelled.long()).to(of_language.dtype))
    return (_of_examples(rows, of_language + of_class) / counted.clamp(min=1)).sum()


def _of_examples(rows: Rows, x: torch.Tensor) -> torch.Tensor:
    """Sum numbers [row] over the rows of each example, [example]."""
    return x.new_zeros(rows.n_examples).index_add(0, rows.owner, x)


def language_loss(rows: Rows) -> torch.Tensor:
    """Compute the mean cross-entropy of what is to be said: language, and answers found good."""
    wanted = rows.language | (rows.labels == GOOD)
    return _mean(-rows.log_p, wanted)


def _mean(losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Average over the rows that count; 0 without one."""
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)


def unlikelihood(g: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute −log(1 − p(target)), [row], of logits [row, vocab]: log Σ of the others' shares."""
    others = g.scatter(-1, targets[:, None], -torch.inf)
    return (g.logsumexp(-1) - others.logsumexp(-1)).clamp(max=-torch.tensor(LEAST).log().item())


def cringe(
    g: torch.Tensor, targets: torch.Tensor, k: int = 1, *, drawn: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute `core.dialogue.cringe.cringe`, [row], of logits [row, vocab]."""
    if not 1 <= k < g.shape[-1]:
        refuse("k", f"1 to {g.shape[-1] - 1}, the other words", str(k))
    order = g.detach().argsort(dim=-1, descending=True, stable=True)[:, : k + 1]
    is_target = order == targets[:, None]
    is_target[:, -1] |= ~is_target.any(-1)
    instead = g.gather(-1, order[~is_target].view(len(g), k))  # [row, k]
    bad = g.gather(-1, targets[:, None])
    losses = -functional.logsigmoid(instead - bad)
    chances = instead.detach().softmax(-1)  # what is drawn has no gradient
    if drawn is None:
        return (chances * losses).sum(-1)
    place = (chances.cumsum(-1)[:, :-1] <= drawn[:, None]).sum(-1)
    return losses.gather(-1, place[:, None])[:, 0]


def with_unlikelihood(rows: Rows, *, alpha: float = 1.0) -> torch.Tensor:
    """Compute the language loss, and α times the mean unlikelihood of bad tokens."""
    return language_loss(rows) + alpha * _mean(
        unlikelihood(rows.g, rows.targets), rows.labels == BAD
    )


def with_cringe(rows: Rows, *, alpha: float = 1.0, k: int = 1) -> torch.Tensor:
    """Compute the language loss, and α times the mean CRINGE loss of bad tokens."""
    return language_loss(rows) + alpha * _mean(cringe(rows.g, rows.targets, k), rows.labels == BAD)


OBJECTIVES: dict[str, Objective] = {
    "director": director_loss,
    "unlikelihood": with_unlikelihood,
    "cringe": with_cringe,
    "language": language_loss,
}


def objective(name: str, **options: float | str) -> Objective:
    """Return an objective with its options.

    Parameters
    ----------
    name : str
        A key of `OBJECTIVES`.
    **options
        Of that function.

    Returns
    -------
    callable
        `rows -> loss`.
    """
    if name not in OBJECTIVES:
        refuse("objective", f"one of {', '.join(OBJECTIVES)}", repr(name))
    return functools.partial(OBJECTIVES[name], **options)
