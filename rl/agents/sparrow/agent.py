"""Sparrow as an agent: `gptwin agent sparrow`.

    runs/sparrow/
      reward/               the preference model, from rankings by how helpful an answer is
      rules/                the rule model, from labels of one rule each; rules.json: whose texts
      ppo/                  the policy, rewarded by both
      round-1/rules, ppo    both again, after a round of probing; round-2/ … likewise

An answer is the best of eight by preference and rules. With records of your own the rules are
those that your labels name, each taken to hold everywhere; since no program checks them, there is
no probing.
"""

from collections.abc import Sequence
from pathlib import Path

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...data.records import Record
from ...data.sources import Prompt
from ...stages.reward_model import scoring
from ...stages.scorer import SCORER, Scorer, load_scorer
from ...training.inputs import read_ended
from ..base import BaseSettings
from ..interface import Candidate, Reply, read_agent, write_agent
from ..run import load_model
from ..world.rules import Messages
from .explanation import explained, scores
from .making import Making, read_rules
from .rerank import candidates
from .rule_model import RuleModel
from .settings import SparrowSettings

NAME = "sparrow"


class Sparrow:
    """The agent; an `interface.Agent`.

    Parameters
    ----------
    policy : GPT
        Answers.
    preference : Scorer
        Frozen.
    rules : RuleModel
    settings : SparrowSettings
    """

    name = NAME
    Settings = SparrowSettings

    def __init__(
        self, policy: GPT, preference: Scorer, rules: RuleModel, settings: SparrowSettings
    ) -> None:
        self.policy, self.rules, self.settings = policy, rules, settings
        self.template = rules.template
        self.score = scoring(preference, self.template.pad)

    @classmethod
    def train(
        cls,
        folder: Path,
        settings: SparrowSettings,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> "Sparrow":
        """Train in a folder; see `interface.Agent`."""
        Making(folder, settings, records, quiet).all()
        write_agent(folder, NAME, settings)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "Sparrow":
        """Read an agent that `train` left: that of its last round."""
        _, said = read_agent(folder)
        settings = SparrowSettings(**said | {"base": BaseSettings(**said["base"])})
        rounds = [folder / f"round-{n}" for n in range(settings.rounds, 0, -1)]
        last = next((there for there in rounds if read_ended(there / "ppo")), folder)
        policy, template = load_model(last / "ppo")
        preference = load_scorer(folder / "reward" / SCORER, policy.config)
        return cls(policy, preference, read_rules(last / "rules", policy, template), settings)

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation; see `interface.Agent`."""
        s = self.settings
        prompt = self._fitted(messages)
        (found,) = candidates(
            self.policy, self.template, self.score, self.rules, [prompt], s.candidates,
            max_response=s.max_response, seed=seed, root=s.root,
        )  # fmt: skip
        if explain:
            shown, chosen, notes = explained(found, len(self.rules.rules))
            return Reply(found.best.text, shown, chosen, notes, found.best.ended)
        every = tuple(Candidate(one.text, scores(one)) for one in found.candidates)
        return Reply(found.best.text, every, found.place, ended=found.best.ended)

    def _fitted(self, messages: Messages) -> Prompt:
        """Forget the oldest turns where a rule, the conversation and an answer have no room."""
        longest = max(
            (len(self.template.tokenizer.encode(rule.text)) for rule in self.rules.rules), default=0
        )
        room = self.policy.config.n_ctx - self.settings.max_response - longest - 4
        turns = list(messages)
        while len(self.template.prompt(turns)) > room:
            oldest = next((i for i, m in enumerate(turns[:-1]) if m.role != "system"), None)
            if oldest is None:
                got = f"{len(self.template.prompt(turns))}"
                refuse("messages", f"at most {room} tokens", got, "a model of a short context")
            del turns[oldest]
        return Prompt(self.template.prompt(turns), tuple(turns))
