"""The two stages around the rule model: the preference model before it, the policy after it.

Both are stages of the pipeline (rl/stages): the reward model as it is, and PPO with `SparrowReward`
in place of a reward model. The policy begins as the base, which stays the reference, and its value
network as the preference model.
"""

import copy
from collections.abc import Sequence

from ....kernels.model.gpt import GPT
from ...configuration import PPOSettings, RewardSettings
from ...data.batches import Shuffled
from ...data.dialogue import Template
from ...data.rankings import Ranking
from ...data.sources import Prompt
from ...ranks.group import ALONE
from ...stages.ppo_stage import PPOStage
from ...stages.reward_model import RewardStage
from ...stages.scorer import Scorer
from .reward import SparrowReward

# Made for the small models of the world. An answer without an end is judged by Sparrow's reward.
PREFERENCE = RewardSettings(batch=16, lr=1e-3, warmup=10, epochs=2)
POLICY = PPOSettings(
    episodes=1920, batch=64, minibatches=2, max_response=16, lr=1e-3, value_lr=2e-3, lr_warmup=5,
    kl_coefficient=0.1, ptx=0.0, missing_end="keep",
)  # fmt: skip


def preference_stage(
    base: GPT,
    rankings: Sequence[Ranking],
    validation: Sequence[Ranking],
    template: Template,
    settings: RewardSettings = PREFERENCE,
    seed: int = 0,
) -> RewardStage:
    """Return the stage that trains the preference model, whose trunk is a copy of the base.

    Parameters
    ----------
    base : GPT
    rankings, validation : sequence of Ranking
    template : Template
    settings : RewardSettings
    seed : int

    Returns
    -------
    RewardStage
        Its scores have no fixed origin: reranking and Sparrow's reward both subtract a mean.
    """
    scorer = Scorer(copy.deepcopy(base), seed)
    return RewardStage(scorer, rankings, validation, settings, [], template.pad, seed, ALONE)


def policy_stage(
    base: GPT,
    preference: Scorer,
    reward: SparrowReward,
    prompts: Sequence[Prompt],
    template: Template,
    settings: PPOSettings = POLICY,
    seed: int = 0,
) -> PPOStage:
    """Return the stage that trains the policy.

    Parameters
    ----------
    base : GPT
        Copied.
    preference : Scorer
        What the value network begins as; copied.
    reward : SparrowReward
    prompts : sequence of Prompt
        A batch of them at least.
    template : Template
    settings : PPOSettings
    seed : int

    Returns
    -------
    PPOStage
    """
    value = copy.deepcopy(preference).requires_grad_(True)
    return PPOStage(
        copy.deepcopy(base).requires_grad_(True), value, reward,
        Shuffled(prompts, settings.batch, seed), settings,
        pad=template.pad, end=template.end, seed=seed, group=ALONE,
    )  # fmt: skip
