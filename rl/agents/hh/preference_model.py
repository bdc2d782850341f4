"""The preference model: pretrained on votes, then taught by helpful and harmless comparisons.

Bai et al. (arXiv 2204.05862, sections 2.3 and 5.1; Askell et al., arXiv 2112.00861, section 4):

    language model  →  pairs by votes (preference-model pretraining)  →  people's comparisons

All of it lowers mean log(1 + e^(r_worse − r_better)), with r read at the last token. Of two kinds
of comparisons the losses are added, not the data mixed:

    L = L_help + λ·L_harm

Taught by one kind alone a preference model is *worse than chance* on the other, since what helps
is what harms.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ....core.checks import refuse
from ....kernels.rlhf.reward_loss import reward_loss
from ...bounds import ABOVE_0, COUNT, DECAYS, FROM_0, LIMIT, SHARE, setting
from ...data.batches import Shuffled
from ...data.rankings import Ranking
from ...judging.intervals import Accuracy
from ...ranks.group import ALONE
from ...stages.reward_model import expect_a_preference, score_rows
from ...stages.scorer import Scorer
from ...training.run import Statistics
from ...training.schedule import cosine
from ...training.update import Update

AT_ONCE = 128  # rankings in an evaluation's pass
NOBODY = -1


@dataclasses.dataclass(frozen=True)
class PreferenceSettings:
    """How a preference model learns.

    Attributes
    ----------
    epochs, batch : int
        Passes over the larger kind; comparisons of each kind a step.
    lr, warmup, final_lr, betas, eps, weight_decay, clip
        As in `PretrainSettings`.
    """

    epochs: int = setting(1, COUNT, "Askell et al.: one")
    batch: int = setting(16, COUNT)
    lr: float = setting(5e-4, ABOVE_0)
    warmup: int = setting(10, FROM_0)
    final_lr: float = setting(0.1, SHARE)
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS)
    eps: float = setting(1e-8, ABOVE_0)
    weight_decay: float = setting(0.0, FROM_0)
    clip: float = setting(1.0, LIMIT)


class PreferenceStage:
    """Teach a preference model by several kinds of comparisons. A `run.Stage`.

    Parameters
    ----------
    name : str
    scorer : Scorer
        Trained in place.
    kinds : mapping of str to sequence of Ranking
        "helpful" and "harmless", or one of them, or votes.
    weights : mapping of str to float
        Of each kind's loss: {"harmless": λ}; 1 where nothing is said.
    validation : mapping of str to sequence of Ranking
        Held out, of any kind.
    settings : PreferenceSettings
    pad, seed : int
        Id of the padding token; seed of the order.
    """

    def __init__(
        self,
        name: str,
        scorer: Scorer,
        kinds: Mapping[str, Sequence[Ranking]],
        weights: Mapping[str, float],
        validation: Mapping[str, Sequence[Ranking]],
        settings: PreferenceSettings,
        pad: int,
        seed: int,
    ) -> None:
        if not kinds or set(weights) - set(kinds):
            refuse("weights", f"kinds of {', '.join(kinds) or 'comparisons'}", f"{dict(weights)}")
        for rankings in kinds.values():
            expect_a_preference(rankings)
        self.name, self.scorer, self.settings, self.pad = name, scorer, settings, pad
        self.weights, self.validation = weights, validation
        self.sources = {
            kind: Shuffled(rankings, min(settings.batch, len(rankings)), seed)
            for kind, rankings in kinds.items()
        }
        per_epoch = max(source.steps_per_epoch for source in self.sources.values())
        self.steps = settings.epochs * per_epoch
        self.update = Update(scorer, settings, ALONE)

    def step(self, index: int) -> Statistics:
        """Lower the weighted sum of the kinds' losses on a batch of each; see `run.Stage`."""
        self.scorer.train()
        found: Statistics = {}
        total = 0.0
        for kind, source in self.sources.items():
            result = reward_loss(*scored(self.scorer, source.batch(index), self.pad))
            loss = result.loss * self.weights.get(kind, 1.0)
            loss.backward()
            total += loss.item()
            found |= {
                f"{kind}_loss": result.loss.item(),
                f"{kind}_accuracy": float(result.accuracy),
            }
        s = self.settings
        lr = cosine(index, self.steps, s.lr, s.warmup, s.final_lr)
        return {"loss": total, "gradient_norm": self.update.apply(lr), "lr": lr, **found}

    def evaluate(self) -> Statistics:
        """Measure the accuracy on each kind that is held out; see `run.Stage`."""
        return {
            f"{kind}_accuracy": agreement(self.scorer, rankings, self.pad).share
            for kind, rankings in self.validation.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"scorer": self.scorer.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.scorer.load_state_dict(state["scorer"])
        self.update.load_state_dict(state["optimizer"])


def taught(
    scorer: Scorer,
    kinds: Mapping[str, Sequence[Ranking]],
    settings: PreferenceSettings,
    *,
    pad: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
) -> Scorer:
    """Teach a preference model in memory, without a run's folder.

    Parameters
    ----------
    scorer, kinds, settings, pad, seed, weights
        As in `PreferenceStage`.

    Returns
    -------
    Scorer
        The same one, frozen, in evaluation mode.
    """
    stage = PreferenceStage("preferences", scorer, kinds, weights or {}, {}, settings, pad, seed)
    for index in range(stage.steps):
        stage.step(index)
    return scorer.requires_grad_(False).eval()


def scored(
    scorer: Scorer, rankings: Sequence[Ranking], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score every completion: scores and ranks [ranking, completion], for `reward_loss`."""
    rows = [r.prompt + completion for r in rankings for completion in r.completions]
    scores = score_rows(scorer, rows, pad)
    most = max(len(r.completions) for r in rankings)
    ranks = torch.full((len(rankings), most), NOBODY, device=scores.device)
    for i, ranking in enumerate(rankings):
        ranks[i, : len(ranking.ranks)] = torch.tensor(ranking.ranks)
    table = torch.zeros(ranks.shape, device=scores.device)
    table[ranks != NOBODY] = scores
    return table, ranks


@torch.no_grad()
def agreement(scorer: Scorer, rankings: Sequence[Ranking], pad: int) -> Accuracy:
    """Count how often a preference model agrees with people.

    Parameters
    ----------
    scorer : Scorer
    rankings : sequence of Ranking
        One at least. Equal scores are wrong.
    pad : int

    Returns
    -------
    Accuracy
        Of all pairs with a preference.
    """
    was = scorer.training
    scorer.eval()
    right = pairs = 0
    for start in range(0, len(rankings), AT_ONCE):
        result = reward_loss(*scored(scorer, rankings[start : start + AT_ONCE], pad))
        pairs += round(float(result.n_pairs))
        right += round(float(result.accuracy * result.n_pairs))
    scorer.train(was)
    return Accuracy(right, pairs)
