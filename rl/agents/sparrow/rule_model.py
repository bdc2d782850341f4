"""One classifier for all rules: P(violated | dialogue, text of the rule).

    <|system|> Never say moon.<|end|><|user|> Say: key moon<|end|><|assistant|> key moon<|end|>
    └──────── the rule ───────────┘└──────────────── the dialogue ───────────────────────────┘
                                                          z at the last token, P(violated) = σ(z)

The rule stands in front as a system's turn does, so that what reads the answer knows what to look
for. Since the text is an input, rules that share words share what is learnt of them, and a rule
that was never labelled can be asked about; how well that goes is measured, not promised
(rl/studies/agents/sparrow.py).

A rater who probes for one rule labels that one alone. So an example is one dialogue with one rule,
and the other rules of the same dialogue are no examples at all: unknown, not kept.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional

from ....core.checks import expect_shape, refuse
from ...data.batches import Shuffled
from ...data.dialogue import Message, Template
from ...ranks.group import ALONE, Group
from ...stages.reward_model import SCORED_AT_ONCE, score_in_parts, score_rows
from ...stages.scorer import Scorer
from ...training.run import Statistics
from ...training.schedule import cosine
from ...training.update import Update


class Rule(Protocol):
    """What Sparrow knows of a rule; `rl.agents.world.rules.Rule` is such."""

    @property
    def text(self) -> str:
        """The rule in words, as the classifier reads it."""

    def applies(self, messages: Sequence[Message]) -> bool:
        """Say whether an answer to this dialogue could break it."""


@dataclasses.dataclass(frozen=True)
class RuleLabel:
    """What a rater said of one answer and one rule.

    Attributes
    ----------
    rule : str
        Its text.
    messages : tuple of Message
        The dialogue before the answer.
    response : list of int
        The answer's ids.
    violated : bool
    """

    rule: str
    messages: tuple[Message, ...]
    response: list[int]
    violated: bool


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """How the classifier is trained.

    Attributes
    ----------
    epochs, batch : int
        Passes over the labels, and labels a step.
    lr, warmup, final_lr, betas, eps, weight_decay, clip
        As in `PretrainSettings`.
    """

    epochs: int = 2
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 10
    final_lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0


def row(
    template: Template,
    rule: str,
    messages: Sequence[Message],
    response: Sequence[int],
    n_ctx: int,
) -> list[int]:
    """Return the ids that the classifier reads: the rule, the dialogue, the answer.

    Of what is longer than `n_ctx` the beginning of the dialogue is left out, never the rule.
    """
    first = template.conversation([Message("system", rule)]).tokens
    turns = template.conversation(messages).tokens
    dialogue = [*turns, template.speaker["assistant"], *response]
    return [*first, *dialogue[-max(n_ctx - len(first), 1) :]]


def rule_loss(logits: torch.Tensor, violated: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Compute what `gptwin.core.dialogue.sparrow.rule_loss` does, on tensors.

    Parameters
    ----------
    logits : torch.Tensor [dialogue, rule]
    violated, known : torch.Tensor of bool [dialogue, rule]

    Returns
    -------
    torch.Tensor []
        With a gradient; 0 if nothing is known.
    """
    for name, tensor in (("violated", violated), ("known", known)):
        expect_shape(name, tensor, tuple(logits.shape), "[dialogue, rule], like logits")
    # What is unknown is left out before anything is computed from it: 0 times NaN is NaN.
    logits = torch.where(known, logits, 0)
    losses = functional.softplus(torch.where(violated, -logits, logits))
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


class RuleStage:
    """Train a scorer to tell broken rules from kept ones. A `run.Stage`.

    Parameters
    ----------
    scorer : Scorer
        Trained in place; its trunk is the SFT model.
    labels, validation : sequence of RuleLabel
        To train on, and held out.
    settings : RuleSettings
    template : Template
    seed : int
        Of the order.
    group : Group
        The ranks.

    Raises
    ------
    ValueError
        If all labels are the same.
    """

    name = "rules"

    def __init__(
        self,
        scorer: Scorer,
        labels: Sequence[RuleLabel],
        validation: Sequence[RuleLabel],
        settings: RuleSettings,
        template: Template,
        seed: int = 0,
        group: Group = ALONE,
    ) -> None:
        if len({label.violated for label in labels}) < 2:
            cause = "a file of kept rules alone, or an agent that breaks none"
            refuse("labels", "broken and kept rules", f"{len(labels)} of one kind", cause)
        self.scorer, self.settings, self.template, self.group = scorer, settings, template, group
        self.validation = validation
        self.source = Shuffled(labels, min(settings.batch, len(labels)), seed)
        self.steps = settings.epochs * self.source.steps_per_epoch
        self.update = Update(scorer, settings, group)

    def step(self, index: int) -> Statistics:
        """Lower the loss of one batch; see `run.Stage`."""
        self.scorer.train()
        batch = self.source.batch(index)
        mine = self.group.part(batch)
        logits, violated = self._scored(mine)
        loss = self._loss(logits, violated) * (len(mine) / len(batch))
        loss.backward()
        s = self.settings
        lr = cosine(index, self.steps, s.lr, s.warmup, s.final_lr)
        norm = self.update.apply(lr)
        right = float(((logits > 0) == violated).sum())
        return {
            "loss": self.group.total(loss.item()),
            "accuracy": self.group.total(right) / len(batch),
            "gradient_norm": norm,
            "lr": lr,
        }

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure loss and accuracy on held-out labels."""
        if not self.validation:
            return {}
        self.scorer.eval()
        rows = [self._row(label) for label in self.validation]
        logits = score_in_parts(self.scorer, rows, self.template.pad, SCORED_AT_ONCE)
        violated = torch.tensor([label.violated for label in self.validation]).to(logits.device)
        right = ((logits > 0) == violated).float().mean()
        return {"loss": self._loss(logits, violated).item(), "accuracy": right.item()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"scorer": self.scorer.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.scorer.load_state_dict(state["scorer"])
        self.update.load_state_dict(state["optimizer"])

    def _row(self, label: RuleLabel) -> list[int]:
        n_ctx = self.scorer.trunk.config.n_ctx
        return row(self.template, label.rule, label.messages, label.response, n_ctx)

    def _scored(self, labels: Sequence[RuleLabel]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z and the label of each, both [label]."""
        logits = score_rows(self.scorer, [self._row(x) for x in labels], self.template.pad)
        return logits, torch.tensor([x.violated for x in labels], device=logits.device)

    def _loss(self, logits: torch.Tensor, violated: torch.Tensor) -> torch.Tensor:
        """Return the mean over labels: one column, in which everything is known."""
        known = torch.ones_like(violated)
        return rule_loss(logits[:, None], violated[:, None], known[:, None])


def train_rules(
    scorer: Scorer,
    labels: Sequence[RuleLabel],
    settings: RuleSettings,
    template: Template,
    seed: int = 0,
) -> Scorer:
    """Train a classifier on labels, and return it frozen, in evaluation mode.

    Parameters
    ----------
    scorer, labels, settings, template, seed
        As in `RuleStage`.

    Returns
    -------
    Scorer
    """
    scorer.requires_grad_(True)
    stage = RuleStage(scorer, labels, [], settings, template, seed)
    for index in range(stage.steps):
        stage.step(index)
    return scorer.requires_grad_(False).eval()


@dataclasses.dataclass(frozen=True)
class RuleModel:
    """A trained classifier, asked about the rules of an agent.

    Attributes
    ----------
    scorer : Scorer
        Frozen, in evaluation mode.
    template : Template
    rules : sequence of Rule
        Those that the agent keeps.
    at_once : int
        The most rows in one pass, by which its memory grows.
    """

    scorer: Scorer
    template: Template
    rules: Sequence[Rule]
    at_once: int = SCORED_AT_ONCE

    @torch.no_grad()
    def violated(
        self, asked: Sequence[tuple[str, Sequence[Message], Sequence[int]]]
    ) -> torch.Tensor:
        """Return P(violated) of texts of rules, each with a dialogue and an answer.

        Parameters
        ----------
        asked : sequence of (str, sequence of Message, sequence of int)

        Returns
        -------
        torch.Tensor [asked]
            float32.
        """
        if not asked:
            return torch.zeros(0, device=self.scorer.weight.device)
        n_ctx = self.scorer.trunk.config.n_ctx
        rows = [row(self.template, *each, n_ctx) for each in asked]
        # Rows of like length side by side: little of a pass is padding.
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        sorted_rows = [rows[i] for i in order]
        logits = score_in_parts(self.scorer, sorted_rows, self.template.pad, self.at_once)
        found = torch.empty_like(logits)
        found[torch.tensor(order, device=logits.device)] = logits
        return found.sigmoid()

    def kept(
        self, dialogues: Sequence[Sequence[Message]], responses: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return P(kept) of every answer and rule, and which rules apply.

        Parameters
        ----------
        dialogues : sequence of sequence of Message
            What is answered.
        responses : sequence of sequence of int
            The answers.

        Returns
        -------
        kept : torch.Tensor [answer, rule]
            1 where a rule does not apply: the classifier is not asked.
        applies : torch.Tensor of bool [answer, rule]
        """
        return kept_by(self.rules, dialogues, responses, self.violated)


def kept_by(
    rules: Sequence[Rule],
    dialogues: Sequence[Sequence[Message]],
    responses: Sequence[Sequence[int]],
    violated: Callable[[list[Any]], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask about the rules that apply, all at once; see `RuleModel.kept`."""
    applies = torch.tensor(
        [[rule.applies(messages) for rule in rules] for messages in dialogues], dtype=torch.bool
    ).reshape(len(dialogues), len(rules))
    places = applies.nonzero().tolist()
    found = violated([(rules[j].text, dialogues[i], responses[i]) for i, j in places])
    applies = applies.to(found.device)
    kept = torch.ones(applies.shape, device=found.device)
    kept[applies] = 1 - found
    return kept, applies
