"""A turn of BlenderBot 3: several calls of one model, each begun by a control token.

    last turn ──► search?  ── do-search ──► query ──► library ──► knowledge ─┐
              ──► memory?  ── do-access ──────────► memories ──► knowledge ─┤  inserted after
              ──► an entity of the context, if there is neither ────────────┤  the history
    earlier turns ──► what is worth remembering                              ▼
                                                                           reply

Each decision is computed by the model, or forced: "always", "never". Decision modules see the last
turn alone and decode greedily; whatever they say that is no decision means no. Knowledge is copied
into the reply's input between control tokens; with several sources either all go in together
("combined") or each makes a reply of its own ("separate"), of which the likeliest is said.

What edges mean: no memory is accessed where there is none, even if forced; a search that finds
nothing leaves no knowledge; a memory is dropped if some stored one has all its words; what is too
long for the context loses its oldest turns, whole, and never the knowledge or the last turn.

Source: Shuster et al. 2022, arXiv 2208.03188; ParlAI, projects/bb3.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ....core.checks import refuse
from ...bounds import COUNT, one_of, setting
from ...data.dialogue import Message, Template
from ..world.rules import words_of

DECISIONS = ("compute", "always", "never")
MODES = ("combined", "separate")
SEARCH, MEMORY, ENTITY = "knowledge", "memory", "entity"  # tokens around what each source gave

# Turns prompts into what the model says after each, greedily.
Speak = Callable[[Sequence[Sequence[int]]], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class TurnSettings:
    """Which modules of a turn run.

    Attributes
    ----------
    search, memory : str
        "compute": the model decides; "always"; "never".
    entity : str
        Likewise; "compute": only where there is neither search nor memory.
    mode : str
        "combined" or "separate".
    room : int
        Tokens of the context that are kept for what is to be said.
    """

    search: str = setting("compute", one_of(*DECISIONS))
    memory: str = setting("compute", one_of(*DECISIONS))
    entity: str = setting("never", one_of(*DECISIONS))
    mode: str = setting("combined", one_of(*MODES))
    room: int = setting(20, COUNT)


class Knowledge(NamedTuple):
    """A sentence for the reply to use.

    Attributes
    ----------
    source : str
        `SEARCH`, `MEMORY` or `ENTITY`.
    text : str
    """

    source: str
    text: str


class Turn(NamedTuple):
    """What was found on the way to a reply.

    Attributes
    ----------
    knowledge : tuple of Knowledge
    memories : tuple of str
        What is remembered of the user's earlier turns.
    prompts : tuple of list of int
        The reply's inputs: one, or one for each source.
    notes : tuple of str
        What happened, for a reader.
    """

    knowledge: tuple[Knowledge, ...]
    memories: tuple[str, ...]
    prompts: tuple[list[int], ...]
    notes: tuple[str, ...]


class Library:
    """What search looks up: sentences that are not in the weights.

    Parameters
    ----------
    facts : mapping of str to str
        A name, and what is said of it.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts = {key.lower(): text for key, text in facts.items()}

    def find(self, query: str) -> str:
        """Return what is said of the first word of the query that is known; empty: nothing is."""
        return next((self.facts[w] for w in words_of(query) if w in self.facts), "")


def is_news(memory: str, stored: Sequence[str]) -> bool:
    """Say whether a memory has a word of its own, beside each that is stored."""
    said = set(words_of(memory))
    return bool(said) and all(said - set(words_of(old)) for old in stored)


class Modules:
    """The calls of a turn.

    Parameters
    ----------
    template : Template
        Whose tokenizer knows the control tokens (base.CONTROLS).
    speak : callable
        The model.
    library : Library
    n_ctx : int
        Of the model.
    settings : TurnSettings
    """

    def __init__(
        self, template: Template, speak: Speak, library: Library, n_ctx: int,
        settings: TurnSettings,
    ) -> None:  # fmt: skip
        self.template, self.speak, self.library = template, speak, library
        self.n_ctx, self.settings = n_ctx, settings

    def control(self, name: str) -> int:
        """Return a control token's id."""
        known = self.template.tokenizer.special_tokens
        if f"<|{name}|>" not in known:
            cause = "a model that was not trained for this agent"
            refuse("tokenizer", f"one with the control token <|{name}|>", "none", cause)
        return known[f"<|{name}|>"]

    def module_prompt(self, turns: Sequence[Message], name: str) -> list[int]:
        """Encode turns and the token that asks for a module."""
        kept = self.n_ctx - self.settings.room - 1
        return [*self.template.conversation(turns).tokens[-kept:], self.control(name)]

    def reply_prompt(
        self, messages: Sequence[Message], knowledge: Sequence[Knowledge]
    ) -> list[int]:
        """Encode the turns, what is known, and that the assistant speaks."""
        inserted = [
            token for source, text in knowledge
            for token in (self.control(source), *self.template.response(text)[:-1],
                          self.control(f"end-{source}"))
        ]  # fmt: skip
        turns = list(messages)
        room = self.n_ctx - self.settings.room - len(inserted) - 1
        while len(turns) > 1 and len(self.template.conversation(turns)) > room:
            turns.pop(0)
        history = self.template.conversation(turns).tokens
        return [*history, *inserted, self.template.speaker["assistant"]]

    def _decides(self, last: Message, forced: str, question: str, yes: str) -> bool:
        if forced != "compute":
            return forced == "always"
        (said,) = self.speak([self.module_prompt([last], question)])
        return said[:1] == [self.control(yes)]

    def remembered(self, messages: Sequence[Message]) -> tuple[str, ...]:
        """Return what the model finds worth remembering of the user's turns but the last."""
        told = [m for m in messages[:-1] if m.role == "user"]
        if not told:
            return ()
        kept: list[str] = []
        none = self.control("no-memory")
        asked = [self.module_prompt([turn], "generate-memory") for turn in told]
        for said in self.speak(asked):
            text = "" if none in said else self.template.text(said)
            if is_news(text, kept):
                kept.append(text)
        return tuple(kept)

    def _sentence(self, source: str, messages: Sequence[Message], texts: Sequence[str]) -> str:
        """Let the model copy the sentence that helps out of what a source gave."""
        given = [Knowledge(source, text) for text in texts]
        prompt = [*self.reply_prompt(messages, given)[:-1], self.control("generate-knowledge")]
        return self.template.text(self.speak([prompt])[0])

    def turn(self, messages: Sequence[Message]) -> Turn:
        """Run the modules before the reply.

        Parameters
        ----------
        messages : sequence of Message
            The last is not the assistant's.

        Returns
        -------
        Turn
        """
        s, last, notes = self.settings, messages[-1], []
        knowledge: list[Knowledge] = []
        searches = self._decides(last, s.search, "is-search-required", "do-search")
        memories = () if s.memory == "never" else self.remembered(messages)
        accesses = bool(memories) and self._decides(
            last, s.memory, "is-memory-required", "do-access-memory"
        )
        if searches:
            query = self.template.text(
                self.speak([self.module_prompt([last], "generate-query")])[0]
            )
            found = self.library.find(query)
            notes.append(f"search: {query!r} → {found or 'nothing'}")
            if found:
                knowledge.append(Knowledge(SEARCH, self._sentence(SEARCH, [last], [found])))
        notes += [f"memory: {text}" for text in memories]
        if accesses:
            knowledge.append(Knowledge(MEMORY, self._sentence(MEMORY, [last], memories)))
        wants = s.entity == "always" or (s.entity == "compute" and not searches and not accesses)
        if wants:
            said = self.speak([self.module_prompt(messages, "extract-entity")])[0]
            knowledge.append(Knowledge(ENTITY, self.template.text(said)))
        knowledge = [one for one in knowledge if one.text]
        notes += [f"{source}: {text}" for source, text in knowledge]
        alone = s.mode == "separate" and len(knowledge) > 1
        groups = [[one] for one in knowledge] if alone else [knowledge]
        prompts = tuple(self.reply_prompt(messages, group) for group in groups)
        return Turn(tuple(knowledge), memories, prompts, tuple(notes))
