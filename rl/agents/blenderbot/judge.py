"""A judge of whole answers: the chance that people find one good, from a scorer's last token.

It reads the conversation with the answer (and, asked for, what the user said next: JUICER's
satisfaction classifier) and learns from thumbs by binary cross-entropy. Reranking, trolls' folds
and the choice among corrections all ask it.
"""

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch.nn import functional

from ....kernels.model.gpt import GPT
from ...data.batches import Shuffled
from ...data.dialogue import Message, Template
from ...data.records import Label
from ...ranks.group import ALONE
from ...stages.scorer import Scorer
from ...training.schedule import cosine
from ...training.update import Update
from .training import TrainSettings, answer

AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Judged:
    """An answer to be judged.

    Attributes
    ----------
    messages : tuple of Message
    reply : str
    then : str
        What the user said next; empty: nothing is known of it.
    """

    messages: tuple[Message, ...]
    reply: str
    then: str = ""


class Judge:
    """Says how likely an answer is a good one.

    Parameters
    ----------
    scorer : Scorer
    template : Template
    """

    def __init__(self, scorer: Scorer, template: Template) -> None:
        self.scorer, self.template = scorer, template

    def tokens(self, judged: Judged) -> list[int]:
        """Encode what is read."""
        ids = answer(self.template, judged.messages, judged.reply).tokens
        if judged.then:
            ids += self.template.conversation([Message("user", judged.then)]).tokens
        return ids[-self.scorer.trunk.config.n_ctx :]

    def logits(self, batch: Sequence[Judged]) -> torch.Tensor:
        """Score answers, [answer]: the logit of being good."""
        rows = [self.tokens(one) for one in batch]
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.full((len(rows), int(lengths.max())), self.template.pad)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = torch.tensor(row)
        device = self.scorer.weight.device
        return self.scorer.last(padded.to(device), lengths.to(device))

    @torch.no_grad()
    def good(self, answers: Sequence[Judged]) -> list[float]:
        """Return σ of each answer's logit."""
        self.scorer.eval()
        found = [0.0] * len(answers)
        order = sorted(range(len(answers)), key=lambda i: len(answers[i].reply))
        for first in range(0, len(order), AT_ONCE):
            places = order[first : first + AT_ONCE]
            scores = self.logits([answers[i] for i in places]).sigmoid().tolist()
            for place, score in zip(places, scores, strict=True):
                found[place] = score
        return found


def judged(labels: Sequence[Label]) -> list[Judged]:
    """Return what labels are about."""
    return [Judged(label.messages, label.completion) for label in labels]


def train_judge(
    trunk: GPT,
    template: Template,
    answers: Sequence[Judged],
    labels: Sequence[int],
    settings: TrainSettings,
    seed: int = 0,
) -> Judge:
    """Train a judge from a copy of a model.

    Parameters
    ----------
    trunk : GPT
        Copied.
    template : Template
    answers : sequence of Judged
    labels : sequence of int
        1: good; 0: bad.
    settings : TrainSettings
    seed : int
        Of the head and of the batches.

    Returns
    -------
    Judge
        In evaluation mode, frozen.
    """
    judge = Judge(Scorer(copy.deepcopy(trunk).requires_grad_(True), seed), template)
    pairs = list(zip(answers, labels, strict=True))
    source = Shuffled(pairs, min(settings.batch, len(pairs)), seed)
    steps = settings.epochs * source.steps_per_epoch
    update = Update(judge.scorer, settings, ALONE)
    judge.scorer.train()
    for index in range(steps):
        batch = source.batch(index)
        logits = judge.logits([one for one, _ in batch])
        wanted = torch.tensor([float(label) for _, label in batch], device=logits.device)
        functional.binary_cross_entropy_with_logits(logits, wanted).backward()
        update.apply(cosine(index, steps, settings.lr, settings.warmup, settings.final_lr))
    judge.scorer.requires_grad_(False).eval()
    return judge
