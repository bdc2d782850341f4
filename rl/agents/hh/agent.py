"""The agent: the best of n answers by its judge, and a refusal where the prompt is unlike any.

How it is made is stages.py.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...data.dialogue import Message, Template
from ...data.records import Record
from ...stages.reward_model import score_rows
from ...stages.scorer import SCORER, Scorer, load_scorer
from ..interface import Candidate, Messages, Reply, read_agent, write_agent
from ..run import load_model
from ..world.rules import REFUSAL
from .comparisons import say
from .outliers import Detector, load_detector, states
from .stages import DETECTOR, Run
from .stages import Settings as HHSettings

NAME = "hh"


@dataclasses.dataclass(frozen=True)
class HH:
    """Anthropic's helpful and harmless assistant. An `interface.Agent`.

    Attributes
    ----------
    model : GPT
        The last policy.
    judge : Scorer
        The last preference model.
    detector : Detector
    template : Template
    n, max_response : int
        Answers sampled, and tokens of each at most.
    """

    model: GPT
    judge: Scorer
    detector: Detector
    template: Template
    n: int
    max_response: int
    name = NAME
    Settings = HHSettings

    @classmethod
    def train(
        cls,
        folder: Path,
        settings: HHSettings,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> "HH":
        """Train in a folder; see `interface.Agent`.

        Parameters
        ----------
        folder, settings, quiet
            As there.
        records : sequence of Record, optional
            The user's comparisons ({"chosen", "rejected"}); others are left out. There are then no
            votes, no harmless kind, and one round.
        """
        write_agent(folder, NAME, settings)
        Run(folder, settings, records, quiet).run()
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "HH":
        """Read an agent that `train` left; see `interface.Agent`."""
        _, settings = read_agent(folder)
        rounds = [n for n in range(1, settings["rounds"] + 1) if (folder / f"policy-{n}").exists()]
        if not rounds or not (folder / DETECTOR).exists():
            cause = "training that was cut: the same command goes on"
            refuse("run", "an agent that has been trained to its end", str(folder), cause)
        model, template = load_model(folder / f"policy-{rounds[-1]}")
        judge = load_scorer(folder / f"judge-{rounds[-1]}" / SCORER, model.config)
        return cls(
            model, judge, load_detector(folder / DETECTOR), template, settings["candidates"],
            settings["max_response"],
        )  # fmt: skip

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation; see `interface.Agent`.

        A prompt that is too long for the context loses its oldest turns. An answer that the limit
        cut off is taken only where all are cut.
        """
        prompt = self._prompt(list(messages))
        (strange,) = self.detector.score(states(self.model, [prompt], self.template.pad))
        if strange > self.detector.threshold:
            note = (
                f"unlike the prompts it knows: {strange:.1f}, and refused above "
                f"{self.detector.threshold:.1f}"
            )
            return Reply(REFUSAL, notes=(note,))
        (said,) = say(
            self.model, self.template, [prompt], self.n, max_response=self.max_response, seed=seed
        )
        with torch.no_grad():
            scores = score_rows(self.judge, [prompt + r for r in said], self.template.pad).tolist()
        ended = [self.template.end in response for response in said]
        allowed = [i for i in range(self.n) if ended[i]] or list(range(self.n))
        chosen = max(allowed, key=scores.__getitem__)  # of equal scores the first
        candidates = tuple(
            Candidate(
                self.template.text(response), {"preference": scores[i]},
                _why(i, chosen, scores, ended) if explain else "",
            )
            for i, response in enumerate(said)
        )  # fmt: skip
        return Reply(candidates[chosen].text, candidates, chosen, ended=ended[chosen])

    def _prompt(self, messages: list[Message]) -> list[int]:
        """Encode a conversation, without its oldest turns where there is no room for them."""
        room = self.model.config.n_ctx - self.max_response
        prompt = self.template.prompt(messages)
        while len(prompt) > room and len(messages) > 1:
            # What the system says stays.
            del messages[1 if messages[0].role == "system" and len(messages) > 2 else 0]
            prompt = self.template.prompt(messages)
        if len(prompt) > room:
            refuse("message", f"at most {room} tokens", f"{len(prompt)}", "a short-context model")
        return prompt


def _why(i: int, chosen: int, scores: Sequence[float], ended: Sequence[bool]) -> str:
    if i == chosen:
        return "preferred" if ended[i] else "preferred, though all were cut off"
    if not ended[i] and ended[chosen]:
        return "cut off by the limit"
    return f"{scores[chosen] - scores[i]:.2f} below the preferred one"
