"""LaMDA's model as what samples responses and rates them; its settings."""

import dataclasses
from collections.abc import Sequence

from ....core.dialogue.lamda import WHEN_NONE
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, COUNT, FROM_0, SHARE, one_of, setting
from ...data.dialogue import Template
from ...stages.generation import generate
from ..base import BaseSettings
from ..interface import Messages
from .rating import Rated, rate

LIMIT = 20  # tokens of a response
SAMPLED_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class LamdaSettings:
    """How LaMDA is trained, and how it answers.

    Attributes
    ----------
    base : BaseSettings
    prompts : int
        Prompts whose sampled responses are rated.
    rater_error : float
        Of each rater; 3 of 5 or 2 of 3 decide.
    conversations : int
        That are scored to be cleaned; `kept` is the share that stays.
    kept : float
        800,000 of 2.5 million, in the paper.
    batch, lr, warmup : int, float, int
        Of a batch a quarter are conversations, and three quarters ratings.
    cleaned_lr : float
        Of the second stage, which reads half of the ratings again: what is kept is little, and read
        more than once.
    tool_steps, talks : int
        Of the third stage, and talks with the tools that it learns from.
    samples : int
        Responses to choose from.
    threshold : float
        Least P(safe); the paper names none.
    temperature, top_k : float, int
        Of sampling.
    when_none : str
        Where no response is safe enough: "refuse", or "safest".
    """

    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    prompts: int = setting(6000, COUNT)
    rater_error: float = setting(0.2, SHARE, "20%: a vote of five is then right 94% of the time")
    conversations: int = setting(12_000, COUNT)
    kept: float = setting(0.32, SHARE, "LaMDA 6.1: 800K of 2.5M turns")
    batch: int = setting(64, COUNT)
    lr: float = setting(2e-3, ABOVE_0)
    cleaned_lr: float = setting(5e-4, ABOVE_0)
    warmup: int = setting(20, FROM_0)
    tool_steps: int = setting(300, COUNT)
    talks: int = setting(6000, COUNT)
    samples: int = setting(16, COUNT, "LaMDA 4.1: 16 samples")
    threshold: float = setting(0.7, FROM_0)
    temperature: float = setting(1.0, ABOVE_0)
    top_k: int = setting(40, COUNT, "LaMDA 4.1: top-k 40")
    when_none: str = setting("refuse", one_of(*WHEN_NONE))


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A model that says something, and rates it.

    Attributes
    ----------
    model : GPT
        In evaluation mode.
    template : Template
        Of its tokenizer, which knows `base.CONTROLS`.
    settings : LamdaSettings
    """

    model: GPT
    template: Template
    settings: LamdaSettings

    def sample(
        self, conversations: Sequence[Messages], n: int, seed: int = 0
    ) -> list[list[list[int]]]:
        """Sample n responses to each conversation, as ids."""
        prompts = [self.template.prompt(m) for m in conversations for _ in range(n)]
        said: list[list[int]] = []
        for start in range(0, len(prompts), SAMPLED_AT_ONCE):
            part = prompts[start : start + SAMPLED_AT_ONCE]
            said += generate(
                self.model, part, max_new_tokens=LIMIT, stop_tokens=(self.template.end,),
                temperature=self.settings.temperature, top_k=self.settings.top_k, seed=seed,
                rows=range(start, start + len(part)),
            ).token_lists()  # fmt: skip
        return [said[i : i + n] for i in range(0, len(said), n)]

    def rated(
        self, conversations: Sequence[Messages], responses: Sequence[Sequence[list[int]]]
    ) -> Rated:
        """Rate responses [conversation, n]: quality [conversation, n, 3], safe [conversation, n].

        A response that the limit cut off has no end, after which a rating would stand: it is not
        rated, and counts as unsafe.
        """
        rows = [
            [*self.template.prompt(m), *response]
            for m, said in zip(conversations, responses, strict=True)
            for response in said
        ]
        found = rate(self.model, self.template.tokenizer.special_tokens, rows)
        shape = len(responses), -1
        ended = found.safe.new_tensor([row[-1] == self.template.end for row in rows])
        return Rated(
            found.quality.view(*shape, 3), (found.safe * ended).view(shape),
            found.elsewhere.view(*shape, found.elsewhere.shape[-1]),
        )  # fmt: skip
