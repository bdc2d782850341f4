"""PPO as a stage of the pipeline: how it begins, how it is measured, and how it goes on.

What an iteration does is ppo.py.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..configuration import PPOSettings
from ..data.batches import Windows
from ..data.sources import Prompt
from ..ranks.group import Group
from ..training.run import Statistics
from ..training.update import Update
from .crew import Crew
from .ppo import PPO, Prompts
from .scorer import Scorer


@runtime_checkable
class Stateful(Protocol):
    """A score that remembers what it saw, as one that normalises rewards does."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""


class PPOStage(PPO):
    """Train a policy with a reward. A `run.Stage`; a step is an iteration.

    Parameters
    ----------
    policy : GPT
        Trained in place; a frozen copy of it is the reference.
    value : Scorer
        Trained in place; its trunk is the policy itself if `settings.shared_trunk`.
    score : callable
        `(prompts, responses) -> torch.Tensor [batch]`: the reward of lists of ids. What it
        remembers, if it is `Stateful`, is kept in checkpoints.
    prompts : Prompts
    settings : PPOSettings
    pad, end : int
        Ids of the padding and the end token.
    seed : int
        Of sampling.
    group : Group
        The ranks.
    pretraining : Windows, optional
        For the pretraining term; needed if `settings.ptx` is not 0.
    judge : callable, optional
        `(policy, reference) -> Statistics`: measures the policy in evaluations.
    """

    name = "ppo"

    def __init__(
        self,
        policy: GPT,
        value: Scorer,
        score: Callable[[Sequence[Prompt], Sequence[list[int]]], torch.Tensor],
        prompts: Prompts,
        settings: PPOSettings,
        *,
        pad: int,
        end: int,
        seed: int,
        group: Group,
        pretraining: Windows | None = None,
        judge: Callable[[GPT, GPT], Statistics] | None = None,
    ) -> None:
        if settings.batch < settings.minibatches * group.world:
            expected = f"at least minibatches x ranks = {settings.minibatches} x {group.world}"
            refuse("ppo.batch", expected, str(settings.batch), "a minibatch without a row")
        if settings.cuda_graphs and group.device.type != "cuda":
            cause = "no GPU that PyTorch can use"
            refuse("ppo.cuda_graphs", "false where there is no CUDA device", "true", cause)
        reference = copy.deepcopy(policy).requires_grad_(False).eval()
        crew = Crew(group, policy, reference, value.trunk)
        trained: list[torch.nn.Module] = [policy, value]
        if settings.shared_trunk:
            head = torch.nn.ParameterList([value.weight, value.bias])
            trained = [torch.nn.ModuleList([policy, head])]
        super().__init__(
            policy, value, reference, score, prompts, pretraining, settings, crew,
            updates=[Update(module, settings, group) for module in trained],
            average=[p.detach().clone() for p in policy.parameters()],
            beta=settings.kl_coefficient, pad=pad, end=end, seed=seed,
        )  # fmt: skip
        self.steps = settings.episodes // settings.batch
        self.measure = judge

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure the policy as `judge` of the constructor does; see `run.Stage`."""
        self.policy.eval()
        with self.crew.holding(self.policy, self.reference):
            return self.measure(self.policy, self.reference) if self.measure else {}

    def state_dict(self) -> dict[str, Any]:
        """Return policy, value, reference, average, moments, β, and what the score remembers."""
        return {
            **{name: module.state_dict() for name, module in self._modules().items()},
            "average": list(self.average),
            "optimizers": [update.state_dict() for update in self.updates],
            "beta": self.beta,
            "score": self.score.state_dict() if isinstance(self.score, Stateful) else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        for average, kept in zip(self.average, state["average"], strict=True):
            average.copy_(kept)
        for update, kept in zip(self.updates, state["optimizers"], strict=True):
            update.load_state_dict(kept)
        self.beta = state["beta"]
        if isinstance(self.score, Stateful) and state.get("score"):
            self.score.load_state_dict(state["score"])

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"policy": self.policy, "value": self.value, "reference": self.reference}
