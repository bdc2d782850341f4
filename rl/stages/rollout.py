"""Responses to learn from: what the policy said, and what each model makes of it.

    tokens   pad pad P P P P | R R R <end> pad         prompts padded on the left,
    time      0   1  2 3 4 5 | 6 7 8   9   10          responses on the right
    scores                 └───┴─┴─┘                   the state at t − 1 scores token t

So the responses of a batch begin at one column, and hidden states from one column before it score
them. `key_start` tells attention where a row's prompt begins; positions count from there.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...kernels.language.cross_entropy import token_log_probs
from ...kernels.model.gpt import GPT
from ..data.batches import IGNORED
from ..data.sources import Prompt
from .scorer import Scorer


@dataclasses.dataclass(frozen=True)
class Responses:
    """Prompts and responses of a batch as one tensor.

    Attributes
    ----------
    tokens : torch.Tensor of int64 [batch, prompt + response]
        Padded on the left of the prompt and on the right of the response.
    key_start : torch.Tensor of int64 [batch]
        Where each row's prompt begins.
    n_prompt : int
        Columns of the prompts.
    mask : torch.Tensor of bool [batch, response]
        True at the response's tokens, the end token among them.
    """

    tokens: torch.Tensor
    key_start: torch.Tensor
    n_prompt: int
    mask: torch.Tensor

    @property
    def response(self) -> torch.Tensor:
        """The responses' tokens [batch, response]."""
        return self.tokens[:, self.n_prompt :]

    @property
    def padded_from(self) -> torch.Tensor | None:
        """What models are told of `key_start`: None if nothing is padded, which is faster."""
        return self.key_start if bool((self.key_start > 0).any()) else None

    def ended(self, end: int) -> torch.Tensor:
        """Return which responses hold the token `end`, bool [batch]."""
        return (self.mask & (self.response == end)).any(1)

    def states(self, model: GPT) -> torch.Tensor:
        """Return the hidden states [batch, response, d_model] that score the response's tokens."""
        return model(self.tokens[:, :-1], key_start=self.padded_from, states_from=self.n_prompt - 1)

    def rows(self, index: torch.Tensor) -> "Responses":
        """Return some rows, without the columns that are padding in all of them."""
        mask = self.mask[index]
        n_response = int(mask.sum(1).max()) if mask.numel() else 0
        first = int(self.key_start[index].min())
        return Responses(
            self.tokens[index, first : self.n_prompt + n_response],
            self.key_start[index] - first,
            self.n_prompt - first,
            mask[:, :n_response],
        )


class Answers(NamedTuple):
    """What the policy said; tensors are [batch, response].

    The values, if there are any, are those of the states that the tokens were drawn from.
    """

    prompts: list[Prompt]
    responses: list[list[int]]
    batch: Responses
    log_probs: torch.Tensor
    values: torch.Tensor | None


class Judged(NamedTuple):
    """What the models make of the answers; tensors are [batch, response], the scores [batch].

    `difference` is how far log π is from generation's, where it was computed again.
    """

    log_probs: torch.Tensor
    reference: torch.Tensor
    values: torch.Tensor
    scores: torch.Tensor
    difference: float | None


@dataclasses.dataclass(frozen=True)
class Experience:
    """What the updates learn from; tensors are [batch, response]."""

    batch: Responses
    log_probs: torch.Tensor
    rewards: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def rows(self, index: torch.Tensor) -> "Experience":
        """Return some rows, without the columns that are padding in all of them."""
        batch = self.batch.rows(index)
        columns = batch.mask.shape[1]
        tensors = (self.log_probs, self.rewards, self.values, self.advantages, self.returns)
        return Experience(batch, *(x[index, :columns] for x in tensors))


def side_by_side(
    prompts: Sequence[list[int]], responses: Sequence[list[int]], pad: int, device: torch.device
) -> Responses:
    """Lay prompts and responses out as one tensor.

    Parameters
    ----------
    prompts, responses : sequence of list of int
        Ids; no prompt is empty, a response may be.
    pad : int
        Id of the padding token.
    device : torch.device
        Of the tensors.

    Returns
    -------
    Responses
    """
    n_prompt = max(map(len, prompts))
    n_response = max(map(len, responses))
    rows = [
        [pad] * (n_prompt - len(p)) + p + r + [pad] * (n_response - len(r))
        for p, r in zip(prompts, responses, strict=True)
    ]
    lengths = torch.tensor([len(r) for r in responses], device=device)
    return Responses(
        torch.tensor(rows, device=device),
        torch.tensor([n_prompt - len(p) for p in prompts], device=device),
        n_prompt,
        torch.arange(n_response, device=device) < lengths[:, None],
    )


def response_log_probs(model: GPT, batch: Responses, temperature: float) -> torch.Tensor:
    """Return log π of every response token.

    Parameters
    ----------
    model : GPT
        The policy, or the reference.
    batch : Responses
        What was said.
    temperature : float
        Of the rollout: it divides the logits.

    Returns
    -------
    torch.Tensor [batch, response]
        float32, 0 outside the mask.
    """
    states = batch.states(model).flatten(0, 1)
    targets = torch.where(batch.mask, batch.response, IGNORED).flatten()
    log_probs = token_log_probs(states, model.output_matrix(), targets, temperature=temperature)
    return log_probs.view(batch.mask.shape)


def response_values(value: Scorer, batch: Responses) -> torch.Tensor:
    """Return the value of the state before each response token.

    Parameters
    ----------
    value : Scorer
        The value network.
    batch : Responses
        What was said.

    Returns
    -------
    torch.Tensor [batch, response]
        float32.
    """
    return value.head(batch.states(value.trunk))
