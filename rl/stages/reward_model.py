"""The reward model: what people prefer, learnt from their rankings (InstructGPT 3.5 and C.2).

Each prompt comes with K completions and their ranks; all pairs of a prompt are one element of the
batch, and each completion is run once (kernels/rlhf/reward_loss.py). After training the bias is
shifted so that demonstrations earn 0 on average: a reward then says how much better than a
labeller.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ...core.checks import refuse
from ...core.rlhf.reward_loss import N_BINS, expected_calibration_error
from ...kernels.rlhf.reward_loss import reward_loss
from ..configuration import RewardSettings
from ..data.batches import Shuffled, split_by_length
from ..data.rankings import Ranking
from ..ranks.group import Group
from ..ranks.sharding import shard, together
from ..training.run import Statistics
from ..training.schedule import cosine
from ..training.update import Update
from .scorer import Scorer

NO_COMPLETION = -1
# (prompts, responses) -> scores [response]; a prompt is a sources.Prompt
Score = Callable[[Sequence[Any], Sequence[list[int]]], torch.Tensor]
EVALUATED_AT_ONCE = 32  # rankings, unless training takes fewer
SCORED_AT_ONCE = 64  # conversations, unless training takes fewer


class RewardStage:
    """Train a scorer to agree with rankings. A `run.Stage`.

    Parameters
    ----------
    scorer : Scorer
        Trained in place; its trunk is the SFT model.
    rankings, validation : sequence of Ranking
        To train on, and held out.
    settings : RewardSettings
    demonstrations : sequence of list of int
        Prompts with a labeller's answer, whose mean reward becomes 0 at the end.
    pad, seed : int
        Id of the padding token; seed of the order.
    group : Group
        The ranks.
    """

    name = "reward"

    def __init__(
        self,
        scorer: Scorer,
        rankings: Sequence[Ranking],
        validation: Sequence[Ranking],
        settings: RewardSettings,
        demonstrations: Sequence[list[int]],
        pad: int,
        seed: int,
        group: Group,
    ) -> None:
        expect_a_preference(rankings)
        self.scorer, self.validation, self.settings = scorer, validation, settings
        self.demonstrations, self.pad, self.group = demonstrations, pad, group
        self.at_once = math.ceil(settings.batch / (settings.accumulate * group.world))
        self.most_completions = max(len(r.completions) for r in rankings)
        self.source = Shuffled(rankings, settings.batch, seed)
        self.steps = settings.epochs * self.source.steps_per_epoch
        shard(scorer.trunk, group)
        self.update = Update(scorer, settings, group)

    def step(self, index: int) -> Statistics:
        """Lower the loss of one batch of prompts; see `run.Stage`."""
        self.scorer.train()
        batch = self.source.batch(index)
        mine = self.group.part(batch)
        summed = right = pairs = tokens = 0.0
        for part in split_by_length(mine, self.settings.accumulate):
            # Every rank runs every micro-batch. A ranking without a pair adds nothing to it.
            part = part or [self._nothing()]
            scores, ranks, n_tokens = self._scored(part)
            result = reward_loss(scores, ranks, centring=self.settings.centring)
            # The mean over the whole batch's prompts, of which these are a part.
            loss = result.loss * (len(part) / len(batch))
            loss.backward()
            summed += loss.item()
            right += float(result.accuracy * result.n_pairs)
            pairs += float(result.n_pairs)
            tokens += n_tokens
        s = self.settings
        lr = cosine(index, self.steps, s.lr, s.warmup, s.final_lr)
        norm = self.update.apply(lr)
        if index + 1 == self.steps:
            self._centre()
        return {
            "loss": self.group.total(summed),
            "accuracy": self.group.total(right) / max(self.group.total(pairs), 1.0),
            "gradient_norm": norm,
            "lr": lr,
            "tokens": self.group.total(tokens),
        }

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure loss, accuracy, margin and calibration on held-out rankings."""
        self.scorer.eval()
        # loss, right, margin, pairs; then of each bin of confidence its pairs and those right
        sums = np.zeros(4 + 2 * N_BINS)
        mine = self.group.part(list(self.validation))
        at_once = min(EVALUATED_AT_ONCE, self.at_once)
        with together(self.scorer):
            for part in split_by_length(mine, math.ceil(len(mine) / at_once)):
                scores, ranks, _ = self._scored(part)
                result = reward_loss(scores, ranks)
                n = float(result.n_pairs)
                means = float(result.accuracy), float(result.mean_margin)
                bins = torch.cat([result.bin_pairs, result.bin_right]).tolist()
                sums += [float(result.loss) * len(part), *(n * mean for mean in means), n, *bins]
        loss, right, margin, pairs, *bins = self.group.total_of_each(sums.tolist())
        return {
            "loss": loss / max(len(self.validation), 1),
            "accuracy": right / max(pairs, 1.0),
            "margin": margin / max(pairs, 1.0),
            "calibration_error": expected_calibration_error(
                np.array(bins[:N_BINS]), np.array(bins[N_BINS:])
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"scorer": self.scorer.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.scorer.load_state_dict(state["scorer"])
        self.update.load_state_dict(state["optimizer"])

    def _nothing(self) -> Ranking:
        """Return a ranking that says nothing: a tie."""
        return Ranking([self.pad], [[self.pad], [self.pad]], [0, 0])

    def _scored(self, rankings: Sequence[Ranking]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Score every completion once: scores and ranks [prompt, K], and the tokens read."""
        rows = [r.prompt + completion for r in rankings for completion in r.completions]
        scored = score_rows(self.scorer, rows, self.pad)
        k = max(len(r.completions) for r in rankings)
        ranks = torch.full((len(rankings), k), NO_COMPLETION, device=scored.device)
        for i, ranking in enumerate(rankings):
            ranks[i, : len(ranking.ranks)] = torch.tensor(ranking.ranks)
        scores = torch.zeros(ranks.shape, device=scored.device)
        scores[ranks != NO_COMPLETION] = scored
        return scores, ranks, sum(map(len, rows))

    @torch.no_grad()
    def _centre(self) -> None:
        """Shift the bias so that the demonstrations earn 0 on average."""
        if self.demonstrations:
            self.scorer.eval()
            at_once = min(SCORED_AT_ONCE, self.at_once * self.most_completions)
            with together(self.scorer):
                scores = score_in_parts(self.scorer, self.demonstrations, self.pad, at_once)
            self.scorer.bias.sub_(scores.mean())


def expect_a_preference(rankings: Sequence[Ranking]) -> None:
    """Refuse rankings none of which says that one completion is better than another.

    Parameters
    ----------
    rankings : sequence of Ranking

    Raises
    ------
    ValueError
        If every pair is a tie, or of two completions that are the same.
    """
    if not any(_prefers(ranking) for ranking in rankings):
        refuse(
            "rankings",
            "a prompt with two different completions of different rank",
            f"{len(rankings)} prompts whose completions are tied or the same",
            "chosen and rejected read from one column, or a rank that is the same everywhere",
        )


def _prefers(ranking: Ranking) -> bool:
    """Say whether a ranking puts a completion before another one."""
    said = zip(map(tuple, ranking.completions), ranking.ranks, strict=True)
    return any(a != b and i != j for (a, i), (b, j) in itertools.combinations(said, 2))


def score_rows(scorer: Scorer, rows: Sequence[list[int]], pad: int) -> torch.Tensor:
    """Score whole conversations at their last token.

    Parameters
    ----------
    scorer : Scorer
        The reward model.
    rows : sequence of list of int
        Ids of each, not empty.
    pad : int
        Id of the padding token.

    Returns
    -------
    torch.Tensor [row]
        float32.
    """
    device = scorer.weight.device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    time = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad] * (time - len(row)) for row in rows], device=device)
    return scorer.last(tokens, lengths)


def score_in_parts(
    scorer: Scorer, rows: Sequence[list[int]], pad: int, at_once: int
) -> torch.Tensor:
    """Score whole conversations a few at a time, so that memory does not grow with their number.

    Parameters
    ----------
    scorer, rows, pad
        As in `score_rows`.
    at_once : int
        The most conversations in one pass.

    Returns
    -------
    torch.Tensor [row]
        float32.
    """
    parts = [rows[i : i + at_once] for i in range(0, len(rows), at_once)]
    return torch.cat([score_rows(scorer, part, pad) for part in parts])


def scoring(scorer: Scorer, pad: int, at_once: int = SCORED_AT_ONCE) -> Score:
    """Return a reward model as what PPO and best-of-n call.

    Parameters
    ----------
    scorer : Scorer
        Frozen.
    pad : int
        Id of the padding token.
    at_once : int
        The most conversations in one pass.

    Returns
    -------
    callable
        `(prompts, responses) -> torch.Tensor [response]`.
    """

    def score(prompts: Sequence[Any], responses: Sequence[list[int]]) -> torch.Tensor:
        rows = [p.ids + response for p, response in zip(prompts, responses, strict=True)]
        with together(scorer):  # ranks may take different numbers of passes
            return score_in_parts(scorer, rows, pad, at_once)

    return score
