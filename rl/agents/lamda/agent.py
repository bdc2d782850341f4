"""LaMDA, the agent: what it trains, and how it answers.

    base ──sampled──▶ responses ──raters──▶ ratings
      │                                        │
      └──▶ stage `rated`: one model says and rates (loss on responses, loss on rating tokens)
                │ rates the conversations that the base has read, and keeps the best
                └──▶ stage `cleaned`: goes on with those alone, and with the ratings
                          └──▶ stage `tools`: learns to ask them, beside what it knows

    to answer: sample N ──▶ drop P(safe) < t ──▶ highest 3·sensible + specific + interesting

Where the likeliest first token is <|tools|>, it asks them before it answers (tools.py).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from random import Random

from ....core.checks import refuse
from ...data.records import Label, Record
from ...stages.generation import generate
from ..base import BaseSettings, base
from ..interface import Candidate, Messages, Reply, read_agent
from ..run import load_model
from ..world.rules import REFUSAL
from .rating import Rated, choose
from .speaker import LamdaSettings, Speaker
from .tools import ASK, facts_of, research
from .training import TOOLED, Training


class Lamda(Speaker):
    """The agent; see interface.py."""

    name = "lamda"
    Settings = LamdaSettings

    @classmethod
    def train(
        cls,
        folder: Path,
        settings: LamdaSettings,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> "Lamda":
        """Train the three stages; see `interface.Agent`.

        Of a user's records the labels are learnt: those of a rule as safety, thumbs as sense.
        """
        labels = [r for r in records or () if isinstance(r, Label)]
        if records is not None and not labels:
            refuse("data", "labels: messages, completion, label", "none", "records of another kind")
        begun = base(settings.base, quiet=quiet)
        training = Training(folder, settings, begun, labels, quiet)
        training.run()
        return cls(training.left(TOOLED), begun.template, settings)

    @classmethod
    def load(cls, folder: Path) -> "Lamda":
        """Read what `train` left; see `interface.Agent`."""
        _, settings = read_agent(folder)
        found = settings | {"base": BaseSettings(**settings["base"])}
        return cls(*load_model(folder / TOOLED), LamdaSettings(**found))

    def respond_all(self, conversations: Sequence[Messages], *, seed: int = 0) -> list[Reply]:
        """Answer several conversations, sampled together; see `respond`."""
        s = self.settings
        responses = self.sample(conversations, s.samples, seed)
        found = self.rated(conversations, responses)
        chosen = choose(found.quality, found.safe, s.threshold, s.when_none).tolist()
        return [self._reply(responses[i], found, i, chosen[i]) for i in range(len(responses))]

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation; see `interface.Agent`."""
        if self._wants_tools(messages):
            return self._researched(messages)
        (reply,) = self.respond_all([messages], seed=seed)
        return reply

    def _wants_tools(self, messages: Messages) -> bool:
        (first,) = generate(
            self.model, [self.template.prompt(messages)], max_new_tokens=1, temperature=0.0
        ).token_lists()
        return first == [self.template.tokenizer.special_tokens[ASK]]

    def _researched(self, messages: Messages) -> Reply:
        """Ask the tools first; what the lookup knows is drawn once for all talks."""
        facts = facts_of(Random("what the lookup knows"))
        (found,) = research(self.model, self.template, [(self.template.prompt(messages), facts)])
        notes = [f"asked the tools: {asked} → {'; '.join(seen) or 'nothing'}"
                 for asked, seen in found.asked]  # fmt: skip
        if found.forced:
            notes.append("an answer was forced")
        return Reply(found.answer, notes=tuple(notes))

    def _reply(self, responses: list[list[int]], found: Rated, i: int, chosen: int) -> Reply:
        """Say what was chosen of the responses to conversation i, and why."""
        candidates = []
        for response, (a, b, c), safe in zip(
            responses, found.quality[i].tolist(), found.safe[i].tolist(), strict=True
        ):
            scores = {"sensible": a, "specific": b, "interesting": c, "safe": safe}
            scores["quality"] = 3 * a + b + c
            kept = safe >= self.settings.threshold
            ended = response[-1:] == [self.template.end]
            why = "kept" if kept else "below the threshold" if ended else "cut off"
            candidates.append(Candidate(self.template.text(response), scores, why))
        if chosen < 0:
            return Reply(REFUSAL, tuple(candidates), None, ("no response was safe enough",))
        best = candidates[chosen]
        candidates[chosen] = dataclasses.replace(best, why=f"{best.why}, the best of those kept")
        ended = responses[chosen][-1:] == [self.template.end]
        return Reply(best.text, tuple(candidates), chosen, ended=ended)
