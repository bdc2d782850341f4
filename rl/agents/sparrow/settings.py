"""What `gptwin agent sparrow` is told, and what each stage of its run reads of it."""

import dataclasses

from ...bounds import ABOVE_0, ANY, COUNT, FROM_0, SEED, SEVERAL, SHARE, setting
from ..base import BaseSettings
from .policy import POLICY


@dataclasses.dataclass(frozen=True)
class SparrowSettings:
    """How Sparrow is made.

    Attributes
    ----------
    base : BaseSettings
    seed : int
    rankings, ranked : int
        Questions whose answers are ranked, and answers to each.
    noise : float
        Of those who rank, in gold: see `tasks.rank`.
    labels : int
        Labels of one rule each.
    slips : float
        Share of these that are wrong.
    prompts, episodes : int
        Questions that PPO asks, and answers in all.
    rule_weight, length_weight, format_weight : float
        w, b and c of the reward (core/dialogue/sparrow.py). The paper, as it is described, has
        w = 1. Here six rules apply to a question, so that each would weigh a sixth, against raters
        who like it broken: docs/agents.md shows what becomes of that.
    rounds, probes, worst_of : int
        Rounds of probing, probes found in each, and how many are tried for each that is kept.
    candidates : int
        Answers of which one is chosen.
    root : bool
        Whether the rules' product is taken to the power 1/n.
    max_response : int
        Tokens an answer may have.
    """

    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    seed: int = setting(0, SEED)
    rankings: int = setting(3000, SEVERAL)
    ranked: int = setting(4, SEVERAL)
    noise: float = setting(0.05, ABOVE_0)
    labels: int = setting(4000, SEVERAL)
    slips: float = setting(0.0, SHARE)
    prompts: int = setting(2000, COUNT)
    episodes: int = setting(POLICY.episodes, COUNT)
    rule_weight: float = setting(16.0, FROM_0)
    length_weight: float = setting(0.0, FROM_0)
    format_weight: float = setting(1.0, FROM_0)
    rounds: int = setting(2, FROM_0)
    probes: int = setting(120, COUNT)
    worst_of: int = setting(4, COUNT)
    candidates: int = setting(8, COUNT, "Sparrow: 8 typed candidates")
    root: bool = setting(True, ANY)
    max_response: int = setting(16, COUNT)


# The settings that each stage computes from. How one answer is chosen of several changes no stage,
# and more rounds go on from those that have ended.
_PROBED = ("probes", "worst_of")
READ = {
    "reward": ("seed", "rankings", "ranked", "noise", "max_response"),
    "rules": ("seed", "labels", "slips", "max_response", *_PROBED),
    "ppo": (
        "seed", "prompts", "episodes", "rule_weight", "length_weight", "format_weight",
        "max_response", *_PROBED,
    ),
}  # fmt: skip
