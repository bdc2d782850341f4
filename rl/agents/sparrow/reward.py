"""The reward of Sparrow's reinforcement learning: preferred, within the rules, and well formed.

    r(y) = (R(y) − μ)/s + w·mean_i P(rule i kept) − (b·T + c·[no end token])

`SparrowReward` is what PPO calls (`stages.ppo_stage.PPOStage`'s `score`). μ and s are the mean and
standard deviation of every R that it has seen, so that it has a state: PPO's checkpoints keep it,
and a run that goes on after a kill earns the rewards that it would have earned. A batch enters μ
and s before it is normalised, once, whoever else computes: several ranks add up what they saw.

PPO has a rule of its own for answers without an end (`ppo.missing_end`). With c it is "keep".
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ....core.dialogue.sparrow import Running, check_rl_reward, running_of
from ...data.dialogue import Message
from ...data.sources import Prompt
from ...ranks.group import ALONE, Group
from ...stages.reward_model import Score


def rl_reward(
    preferences: torch.Tensor,
    kept: torch.Tensor,
    applies: torch.Tensor,
    running: Running,
    *,
    rule_weight: float = 1.0,
    lengths: torch.Tensor | None = None,
    invalid: torch.Tensor | None = None,
    length_weight: float = 0.0,
    format_weight: float = 0.0,
) -> torch.Tensor:
    """Compute what `gptwin.core.dialogue.sparrow.rl_reward` does, on tensors."""
    check_rl_reward(preferences, kept, applies)
    reward = (preferences - running.mean) / running.std
    reward = reward + rule_weight * (kept * applies).sum(1) / applies.sum(1).clamp(min=1)
    if lengths is not None:
        reward = reward - length_weight * lengths
    if invalid is not None:
        reward = reward - format_weight * invalid
    return reward


class Rules(Protocol):
    """Who says whether rules are kept; `RuleModel` is such, and so is the program itself."""

    def kept(
        self, dialogues: Sequence[Sequence[Message]], responses: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return P(kept) [answer, rule], and which rules apply, bool [answer, rule]."""


class SparrowReward:
    """Score answers as Sparrow's reinforcement learning does.

    Parameters
    ----------
    preference : callable
        `(prompts, responses) -> torch.Tensor [response]`: R.
    rules : Rules or None
        None: preference alone.
    end : int
        Id of the end token.
    rule_weight, length_weight, format_weight : float
        w, b for each token, and c.
    group : Group
        The ranks, each of which scores its part of a batch.
    """

    def __init__(
        self,
        preference: Score,
        rules: Rules | None,
        end: int,
        *,
        rule_weight: float = 1.0,
        length_weight: float = 0.0,
        format_weight: float = 1.0,
        group: Group = ALONE,
    ) -> None:
        self.preference, self.rules, self.end, self.group = preference, rules, end, group
        self.rule_weight = rule_weight
        self.length_weight, self.format_weight = length_weight, format_weight
        self.running = Running()

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[list[int]]) -> torch.Tensor:
        """Return the reward [response], and let μ and s see the answers.

        Parameters
        ----------
        prompts : sequence of Prompt
        responses : sequence of list of int

        Returns
        -------
        torch.Tensor [response]
        """
        found = self.preference(prompts, responses).float()
        self.running = self.running.joined(self._seen_by_all(running_of(found.cpu().numpy())))
        kept, applies = self._kept(prompts, responses, found)
        return rl_reward(
            found, kept, applies, self.running, rule_weight=self.rule_weight,
            lengths=torch.tensor([len(r) for r in responses]).to(found),
            invalid=torch.tensor([self.end not in r for r in responses]).to(found),
            length_weight=self.length_weight, format_weight=self.format_weight,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return μ and s, as the sums they are made from."""
        return self.running._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.running = Running(**state)

    def _seen_by_all(self, mine: Running) -> Running:
        """Join what every rank has seen of a batch."""
        if self.group.world == 1:
            return mine
        n, total = self.group.total_of_each([mine.n, mine.n * mine.mean])
        mean = total / max(n, 1)
        (squares,) = self.group.total_of_each([mine.squares + mine.n * (mine.mean - mean) ** 2])
        return Running(n, mean, squares)

    def _kept(
        self, prompts: Sequence[Prompt], responses: Sequence[list[int]], found: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.rules is None:
            nothing = found.new_zeros(len(found), 0)
            return nothing, nothing.bool()
        kept, applies = self.rules.kept([prompt.messages for prompt in prompts], responses)
        return kept.to(found), applies.to(found.device)
