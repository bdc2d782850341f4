"""A GPT, or an encoder, with a linear head on the end token's state.

    h [sequence, time, d_model] = trunk(tokens)          the end token comes last
    logits = W (h_end of its sequences, added) + b       a class for each row of W
    choice: w·h_end + b of each sequence                 then softmax over the sequences

Sequences are padded on the left, so that an encoder, which sees both ways, sees no padding either.
The head drops the same entries of an example's sequences, as the released code does: an answer is
compared with the others on the same features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from ...core.checks import refuse
from ...core.language.finetuning_loss import FinetuningLoss, check_finetuning_loss
from ...kernels.language.cross_entropy import token_log_probs
from ...kernels.model.gpt import GPT
from ..data.batches import IGNORED
from .forms import Labelled

HEAD_STD = 0.02  # as the trunk's matrices


class Batch(NamedTuple):
    """Examples of one form side by side.

    Attributes
    ----------
    tokens : torch.Tensor of int64 [example * sequence, time]
        Padded on the left.
    key_start : torch.Tensor of int64 [example * sequence]
        Where each begins.
    labels : torch.Tensor of int64 [example]
    n_sequences : int
        Of each example.
    is_choice : bool
    """

    tokens: torch.Tensor
    key_start: torch.Tensor
    labels: torch.Tensor
    n_sequences: int
    is_choice: bool


def collate(examples: Sequence[Labelled], pad: int, device: torch.device) -> Batch:
    """Put examples side by side.

    Parameters
    ----------
    examples : sequence of Labelled
        Of one form, with as many sequences each.
    pad : int
        Any id: nobody sees it.
    device : torch.device
        Of the tensors.

    Returns
    -------
    Batch

    Raises
    ------
    ValueError
        If they are of two forms.
    """
    kinds = {(len(example.sequences), example.is_choice) for example in examples}
    if len(kinds) != 1:
        refuse("examples", "of one form, with as many sequences in each", f"{len(kinds)} kinds")
    ((n_sequences, is_choice),) = kinds
    sequences = [ids for example in examples for ids in example.sequences]
    time = max(map(len, sequences))
    rows = [[pad] * (time - len(ids)) + ids for ids in sequences]
    return Batch(
        torch.tensor(rows, device=device),
        torch.tensor([time - len(ids) for ids in sequences], device=device),
        torch.tensor([example.label for example in examples], device=device),
        n_sequences,
        is_choice,
    )


class Classifier(torch.nn.Module):
    """A trunk and a linear head.

    Parameters
    ----------
    trunk : GPT
        Taken as it is, not copied; a decoder, or an encoder (`causal=False`).
    n_classes : int
        Rows of the head; 1 for multiple choice.
    seed : int
        Of the head's weights.
    dropout : float
        On the end states, in training.
    """

    def __init__(self, trunk: GPT, n_classes: int, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk, self.dropout = trunk, dropout
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(n_classes, trunk.config.d_model, generator=generator)
        self.weight = torch.nn.Parameter(HEAD_STD * drawn)
        self.bias = torch.nn.Parameter(torch.zeros(n_classes))
        self.to(trunk.wte.weight.device)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits [example, class], or [example, sequence] of a choice."""
        return self.head(self._states(batch, batch.tokens.shape[1] - 1)[:, -1], batch)

    def head(self, end_states: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Turn the end states [example * sequence, d_model] into logits."""
        states = end_states.float().view(len(batch.labels), batch.n_sequences, -1)
        if self.training and self.dropout:
            kept = functional.dropout(torch.ones_like(states[:, :1]), self.dropout)
            states = states * kept  # one mask for all sequences of an example
        if batch.is_choice:
            return functional.linear(states, self.weight, self.bias)[..., 0]
        return functional.linear(states.sum(1), self.weight, self.bias)

    def loss(self, batch: Batch, lm_weight: float) -> FinetuningLoss:
        """Return the loss of a batch, as `core.language.finetuning_loss` defines it.

        Parameters
        ----------
        batch : Batch
        lm_weight : float
            λ; 0 spares the language model's part, which an encoder has not.

        Returns
        -------
        FinetuningLoss
            Tensors; the loss carries a gradient.
        """
        if not lm_weight:
            task = functional.cross_entropy(self(batch), batch.labels)
            return FinetuningLoss(task, task.detach(), task.new_zeros(()))
        if not self.trunk.config.causal:
            cause = "an encoder sees the token that it would predict"
            refuse("lm_weight", "0 for an encoder", repr(lm_weight), cause)
        states = self._states(batch, 0)
        logits = self.head(states[:, -1], batch)
        # The state at t − 1 predicts token t; the first token is predicted by none.
        place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        mask = (place > batch.key_start[:, None])[:, 1:]
        targets = torch.where(mask, batch.tokens[:, 1:], IGNORED)
        log_probs = token_log_probs(
            states[:, :-1].flatten(0, 1), self.trunk.output_matrix(), targets.flatten()
        )
        return finetuning_loss(logits, batch.labels, -log_probs.view_as(targets), mask, lm_weight)

    def _states(self, batch: Batch, first: int) -> torch.Tensor:
        padded = bool((batch.key_start > 0).any())
        key_start = batch.key_start if padded else None
        return self.trunk(batch.tokens, key_start=key_start, states_from=first)


def finetuning_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    token_losses: torch.Tensor,
    mask: torch.Tensor,
    lm_weight: float,
) -> FinetuningLoss:
    """Compute what `gptwin.core.language.finetuning_loss` does, on tensors.

    Parameters
    ----------
    logits, labels, token_losses, mask, lm_weight
        As there.

    Returns
    -------
    FinetuningLoss
        The loss carries a gradient.
    """
    check_finetuning_loss(logits, labels, token_losses, mask, lm_weight)
    task = functional.cross_entropy(logits, labels)
    counted = mask.sum(1)
    sums = torch.where(mask, token_losses, 0).sum(1)
    n_sequences = (counted > 0).sum().clamp(min=1)
    language_model = (sums / counted.clamp(min=1)).sum() / n_sequences
    loss = task + lm_weight * language_model if lm_weight else task
    return FinetuningLoss(loss, task.detach(), language_model.detach())
