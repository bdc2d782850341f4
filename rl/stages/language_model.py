"""Pretraining and supervised fine-tuning: the same step on other text.

Both lower the cross-entropy of the next token, −Σ log π(token) / n. Pretraining counts every token
of a window of running text; fine-tuning those that an assistant had to say (dialogue.py). n is the
number of tokens that count in the whole batch, over all micro-batches and ranks: dividing each
micro-batch by its own would weigh short conversations more.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ...kernels.model.gpt import GPT
from ..configuration import PretrainSettings, SFTSettings
from ..data.batches import IGNORED, collate, split_by_length
from ..data.dialogue import Encoded
from ..ranks.group import Group
from ..ranks.sharding import shard, together
from ..training.run import Statistics
from ..training.schedule import cosine
from ..training.update import Update

EVALUATED_AT_ONCE = 32  # examples, unless training takes fewer


class Source(Protocol):
    """Where a step's examples come from; `batches.Shuffled` and `batches.Windows` are such."""

    def batch(self, index: int) -> list[Encoded]:
        """Return the examples of step `index`, over all ranks."""


class LanguageModelStage:
    """Train a model to say the next token. A `run.Stage`.

    Parameters
    ----------
    name : str
        "pretrain" or "sft".
    model : GPT
        Trained in place; on the group's device.
    source : Source
        Of the training examples.
    validation : sequence of Encoded
        Held-out examples, all of them measured in each evaluation.
    settings : PretrainSettings or SFTSettings
        Rates, moments and micro-batches.
    steps : int
        Optimizer steps.
    pad : int
        Id of the padding token.
    group : Group
        The ranks.
    """

    def __init__(
        self,
        name: str,
        model: GPT,
        source: Source,
        validation: Sequence[Encoded],
        settings: PretrainSettings | SFTSettings,
        steps: int,
        pad: int,
        group: Group,
    ) -> None:
        self.name, self.model, self.source, self.validation = name, model, source, validation
        self.settings, self.steps, self.pad, self.group = settings, steps, pad, group
        shard(model, group)
        self.update = Update(model, settings, group)

    def step(self, index: int) -> Statistics:
        """Lower the loss of one batch; see `run.Stage`."""
        self.model.train()
        mine = self.group.part(self.source.batch(index))
        # Every rank runs every micro-batch: in each, ranks exchange a sharded model's parameters.
        micro_batches = [
            self._collated(part or [self._nothing()])
            for part in split_by_length(mine, self.settings.accumulate)
        ]
        counted = self.group.total(sum(_count(targets) for _, targets in micro_batches))
        summed = 0.0
        for tokens, targets in micro_batches:
            share = _count(targets) / max(counted, 1)
            loss = self.model.loss(tokens, targets, ignore_index=IGNORED) * share
            loss.backward()
            summed += loss.item()
        s = self.settings
        lr = cosine(index, self.steps, s.lr, s.warmup, s.final_lr)
        norm = self.update.apply(lr)
        processed = self.group.total(sum(len(example.tokens) - 1 for example in mine))
        return {
            "loss": self.group.total(summed),
            "gradient_norm": norm,
            "lr": lr,
            "tokens": processed,
        }

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure the loss of held-out examples; see `run.Stage`."""
        mine = self.group.part(list(self.validation))
        s = self.settings
        trained_at_once = math.ceil(s.batch / (s.accumulate * self.group.world))
        with together(self.model):
            summed, counted = summed_loss(
                self.model.eval(), mine, self.pad, self.group.device,
                at_once=min(EVALUATED_AT_ONCE, trained_at_once),
            )  # fmt: skip
        loss = self.group.total(summed) / max(self.group.total(counted), 1)
        return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"model": self.model.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.model.load_state_dict(state["model"])
        self.update.load_state_dict(state["optimizer"])

    def _nothing(self) -> Encoded:
        """Return an example in which no token counts."""
        return Encoded([self.pad, self.pad], [False, False])

    def _collated(self, examples: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        return _on(self.group.device, collate(examples, self.pad))


@torch.no_grad()
def summed_loss(
    model: GPT,
    examples: Sequence[Encoded],
    pad: int,
    device: torch.device,
    *,
    at_once: int = EVALUATED_AT_ONCE,
) -> tuple[float, int]:
    """Measure a model's loss on examples.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    examples : sequence of Encoded
    pad : int
        Id of the padding token.
    device : torch.device
        The model's.
    at_once : int
        The most examples in one pass, by which its memory grows.

    Returns
    -------
    loss, n_tokens : float, int
        Summed over the tokens that count, and how many these are.
    """
    summed, counted = 0.0, 0
    for part in split_by_length(examples, math.ceil(len(examples) / at_once)):
        tokens, targets = _on(device, collate(part, pad))
        n = _count(targets)
        summed += model.loss(tokens, targets, ignore_index=IGNORED).item() * n
        counted += n
    return summed, counted


def _on(
    device: torch.device, tensors: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    return tensors[0].to(device), tensors[1].to(device)


def _count(targets: torch.Tensor) -> int:
    return int((targets != IGNORED).sum())
