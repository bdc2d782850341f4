"""Training on labelled answers, beside conversations: one stage for every objective.

An example is an answer with what is known of it: whether the generator is to learn to say it, and
whether people found it good. Each step takes a batch of language and a batch of labelled answers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, BELOW_1, COUNT, DECAYS, FROM_0, LIMIT, setting
from ...data.batches import IGNORED, Shuffled, collate
from ...data.dialogue import Encoded, Message, Template
from ...data.records import Label
from ...ranks.group import ALONE
from ...stages.language_model import summed_loss
from ...training.run import Statistics
from ...training.schedule import cosine
from ...training.update import Update
from .director import UNLABELLED, Director
from .objectives import Objective, Rows


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a stage of this agent is optimised.

    Attributes
    ----------
    lr, final_lr, warmup, batch, epochs, betas, eps, weight_decay, clip
        As in `SFTSettings`; a batch is of language and another of labelled answers. The clip of 10
        is ParlAI's, whose loss is summed over a batch's examples.
    """

    lr: float = setting(1e-3, ABOVE_0)
    final_lr: float = setting(0.1, FROM_0)
    warmup: int = setting(10, FROM_0)
    batch: int = setting(32, COUNT)
    epochs: int = setting(2, COUNT)
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS)
    eps: float = setting(1e-8, ABOVE_0)
    weight_decay: float = setting(0.0, BELOW_1)
    clip: float = setting(10.0, LIMIT)


@dataclasses.dataclass(frozen=True)
class Example:
    """An answer, and what is known of it.

    Attributes
    ----------
    encoded : Encoded
        The conversation with the answer; `trained` is True in that answer.
    label : int
        1: good, 0: bad, −1: nobody said.
    language : bool
        Whether the generator learns to say it.
    """

    encoded: Encoded
    label: int = UNLABELLED
    language: bool = False

    def __len__(self) -> int:
        return len(self.encoded)


def answer(template: Template, messages: Sequence[Message], reply: str) -> Encoded:
    """Encode a conversation of which the last answer alone is trained; an empty one is its end."""
    before = template.prompt(messages)
    said = template.response(reply) if reply else [template.end]
    return Encoded([*before, *said], [False] * len(before) + [True] * len(said))


def labelled(template: Template, labels: Sequence[Label], *, speak: bool = False) -> list[Example]:
    """Turn thumbs into examples.

    Parameters
    ----------
    template : Template
    labels : sequence of Label
    speak : bool
        The generator learns to say the good ones, too.

    Returns
    -------
    list of Example
    """
    return [
        Example(answer(template, x.messages, x.completion), x.label, speak and x.label == 1)
        for x in labels
    ]


def rows_of(model: GPT | Director, examples: Sequence[Example], pad: int) -> Rows:
    """Run a model on examples, and keep the logits of the tokens that are trained.

    Parameters
    ----------
    model : GPT or Director
    examples : sequence of Example
        At least one.
    pad : int

    Returns
    -------
    Rows
    """
    trunk = model.trunk if isinstance(model, Director) else model
    device = trunk.wte.weight.device
    tokens, targets = (x.to(device) for x in collate([e.encoded for e in examples], pad))
    said = targets != IGNORED  # [example, time]
    labels, language = (
        torch.tensor(column, device=device)[:, None]
        for column in ([e.label for e in examples], [e.language for e in examples])
    )
    rows = said & (language | (labels != UNLABELLED))
    owner = rows.nonzero()[:, 0]
    hidden = trunk(tokens)[rows]  # [row, d_model]
    g = trunk.logits(hidden)
    return Rows(
        g=g,
        c=model.class_logits(hidden, g) if isinstance(model, Director) else None,
        targets=targets[rows],
        language=language[owner, 0],
        labels=labels[owner, 0],
        owner=owner,
        n_examples=len(examples),
    )


class LabelStage:
    """Lower an objective. A `run.Stage`.

    Parameters
    ----------
    name : str
    model : GPT or Director
        Trained in place.
    objective : callable
        `rows -> loss` (objectives.py).
    language : sequence of Example
        Conversations; may be empty.
    labels : sequence of Example
        Labelled answers; may be empty.
    validation : sequence of Encoded
        Held-out conversations: the generator's own loss is measured on them.
    settings : TrainSettings
    pad : int
    seed : int
    frozen : bool
        Train the second head alone.
    """

    def __init__(
        self,
        name: str,
        model: GPT | Director,
        objective: Objective,
        language: Sequence[Example],
        labels: Sequence[Example],
        validation: Sequence[Encoded],
        settings: TrainSettings,
        pad: int,
        seed: int = 0,
        *,
        frozen: bool = False,
    ) -> None:
        self.name, self.model, self.objective = name, model, objective
        self.validation, self.settings, self.pad = validation, settings, pad
        self.trunk = model.trunk if isinstance(model, Director) else model
        self.sources = [
            Shuffled(part, min(settings.batch, len(part)), seed + i, "batch")
            for i, part in enumerate((labels, language))
            if part
        ]
        self.steps = settings.epochs * max((s.steps_per_epoch for s in self.sources), default=0)
        self.trunk.requires_grad_(not frozen)
        self.update = Update(model, settings, ALONE)

    @property
    def director(self) -> Director:
        """The model, where it has a second head."""
        if not isinstance(self.model, Director):
            refuse("model", "a Director", type(self.model).__name__, "a stage of language alone")
        return self.model

    def step(self, index: int) -> Statistics:
        """Lower the loss of one batch; see `run.Stage`."""
        self.model.train()
        examples = [e for source in self.sources for e in source.batch(index)]
        rows = rows_of(self.model, examples, self.pad)
        loss = self.objective(rows)
        loss.backward()
        s = self.settings
        norm = self.update.apply(cosine(index, self.steps, s.lr, s.warmup, s.final_lr))
        tokens = sum(map(len, examples))
        return {"loss": loss.item(), "gradient_norm": norm, "tokens": float(tokens)}

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure the generator's loss of held-out conversations; see `run.Stage`."""
        return {"loss": generator_loss(self.trunk, self.validation, self.pad)}

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"model": self.model.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.model.load_state_dict(state["model"])
        self.update.load_state_dict(state["optimizer"])

    def run(self) -> None:
        """Do all steps, without a folder: for studies, whose stages are many and short."""
        for index in range(self.steps):
            self.step(index)
        self.model.eval()


def generator_loss(model: GPT, held_out: Sequence[Encoded], pad: int) -> float:
    """Return the mean cross-entropy of the generator's own head on conversations.

    What is spoken under a guide has no perplexity that could be compared; the generator has.
    """
    device = model.wte.weight.device
    summed, counted = summed_loss(model.eval(), held_out, pad, device)
    return summed / max(counted, 1)
