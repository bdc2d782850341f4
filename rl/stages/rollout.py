"""Responses to learn from: what the policy said, and what each model makes of it.

    tokens   pad pad P P P P | R R R <end> pad         prompts padded on the left,
    time      0   1  2 3 4 5 | 6 7 8   9   10          responses on the right
    scores                 └───┴─┴─┘                   the state at t − 1 scores token t

So the responses of a batch begin at one column, and hidden states from one column before it score
them. `key_start` tells attention where a row's prompt begins; positions count from there.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...kernels.cpu.halves import Cores
from ...kernels.language.cross_entropy import token_log_probs
from ...kernels.model.gpt import GPT
from ..data.batches import IGNORED
from .generation import Generation
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


def in_shares(
    cores: Cores, function: Callable[[Responses], torch.Tensor], batch: Responses
) -> list[torch.Tensor]:
    """Compute something of every response.

    Parameters
    ----------
    cores : Cores
        Whoever computes.
    function : callable
        Of some of the responses: a tensor [row, response].
    batch : Responses
        All of them.

    Returns
    -------
    list of torch.Tensor [row, response]
        Of every share of the rows; `joined` puts them together.
    """
    shares = cores.shares(np.arange(len(batch.tokens)))
    return cores.map(lambda rows: function(batch.rows(torch.from_numpy(rows))), shares)


def joined(parts: Sequence[torch.Tensor], batch: Responses) -> torch.Tensor:
    """Put together what `in_shares` found.

    Parameters
    ----------
    parts : sequence of torch.Tensor [row, response]
    batch : Responses

    Returns
    -------
    torch.Tensor [batch, response]
        Without a gradient; 0 where all rows of a share are padding.
    """
    whole = parts[0].new_zeros(batch.mask.shape)
    for i, part in enumerate(parts):
        whole[i :: len(parts), : part.shape[1]] = part.detach()
    return whole


def response_log_probs(model: GPT, batch: Responses, temperature: float) -> torch.Tensor:
    """Return log π of every response token.

    Parameters
    ----------
    model : GPT
        The policy, or the reference.
    batch : Responses
        What was said.
    temperature : float
        Of the rollout: the states are divided by it, and so the logits.

    Returns
    -------
    torch.Tensor [batch, response]
        float32, 0 outside the mask.
    """
    states = batch.states(model).flatten(0, 1) / temperature
    targets = torch.where(batch.mask, batch.response, IGNORED).flatten()
    return token_log_probs(states, model.output_matrix(), targets).view(batch.mask.shape)


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


@dataclasses.dataclass
class Acting:
    """What the policy that acted made of its own responses; all [batch, response].

    Attributes
    ----------
    log_prob, values : torch.Tensor
        float32, 0 outside the mask.
    ahead : list of torch.Tensor, or None
        The values with what their gradient takes, of each share of all rows (cpu/halves.py).
    difference : float or None
        The most by which generation's log-probabilities differ from `log_prob`; None: it is them.
    """

    log_prob: torch.Tensor
    values: torch.Tensor
    ahead: list[torch.Tensor] | None = None
    difference: float | None = None

    def take_ahead(self) -> list[torch.Tensor] | None:
        """Return `ahead`, once: the parameters that it was computed with are about to change."""
        ahead, self.ahead = self.ahead, None
        return ahead


def judge_acting(
    policy: GPT,
    value: Scorer,
    batch: Responses,
    said: Generation,
    temperature: float,
    *,
    ahead: bool,
    cores: Cores,
) -> Acting:
    """Return log-probabilities and values of the policy that acted.

    Of a model in full precision, generation has computed them: the log-probabilities, and the
    values if they are read from the policy's own states.

    Parameters
    ----------
    policy : GPT
    value : Scorer
        On the policy itself, or on a network of its own.
    batch : Responses
        What was said.
    said : Generation
        The same, as it was generated, with `value.head` as `read` if the trunk is the policy.
    temperature : float
        Of the rollout.
    ahead : bool
        The first update is of all these rows: keep a value network's pass for its gradient, since
        no parameter changes in between. (Not with dropout, which an update has and this has not.)
    cores : Cores
        Whoever computes.

    Returns
    -------
    Acting
    """
    generated = torch.where(batch.mask, said.log_probs, 0.0)
    shared = value.trunk is policy
    exact = policy.dtype in (torch.float32, torch.float64)
    if exact and shared and said.readings is not None:
        return Acting(generated, torch.where(batch.mask, said.readings, 0.0))
    with torch.set_grad_enabled(ahead and not shared and value.trunk.config.dropout == 0):
        found = in_shares(cores, lambda rows: response_values(value, rows), batch)
    values = torch.where(batch.mask, joined(found, batch), 0.0)
    kept = found if found[0].requires_grad else None
    if exact:
        return Acting(generated, values, kept)
    log_prob = response_log_probs(policy, batch, temperature)
    return Acting(log_prob, values, kept, (generated - log_prob).abs().max().item())
