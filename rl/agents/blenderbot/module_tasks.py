"""What teaches the modules of a turn: facts that are in no weights, and things worth remembering.

    fact        What does Ada like?     search ► "Ada" ► "Ada likes the lamp." ► the lamp
    memory      What do I have?         memory "I have a lamp." ► a lamp
    neither     Say: tree door          no search, no memory

Who likes what is drawn anew for each example, so that nothing but the sentence that was found can
tell. Each example becomes one training text for every module that it has something to teach.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from random import Random
from typing import NamedTuple

from ...data.dialogue import Encoded, Message
from ...data.sources import answered
from ...data.tasks import NAMES, WORDS, Exercise, exercises
from .modules import MEMORY, SEARCH, Knowledge, Library, Modules
from .training import Example

LIKES = ("What does {} like?", "Tell me what {} likes.", "{} likes what?")
MINE = ("What do I have?", "Tell me what I have.")


class Case(NamedTuple):
    """A question, and what has to be looked up to answer it.

    Attributes
    ----------
    exercise : Exercise
        Its last turn is the question; its answer the right one.
    needs : str
        `SEARCH`, `MEMORY`, or empty.
    query, sentence : str
        What to search for, and the sentence that helps.
    """

    exercise: Exercise
    needs: str = ""
    query: str = ""
    sentence: str = ""


def cases(seed: int, *, held_out: bool) -> Iterator[Case]:
    """Draw questions without end: a third ask for a fact, a third for a memory.

    Half of the others come after something else was talked of, as in a long conversation.
    """
    rng, others = Random(f"modules {seed} {held_out}"), exercises(seed, held_out=held_out)
    while True:
        name, thing = rng.choice(NAMES), rng.choice(WORDS)
        question = rng.choice(LIKES).format(name)
        asked = Exercise("repeat", (Message("user", question),), f"the {thing}")
        yield Case(asked, SEARCH, name, f"{name} likes the {thing}.")
        yield _remembered(rng)
        exercise = next(others)
        if rng.random() < 0.5:
            earlier = next(others)
            before = answered(earlier, earlier.answer)
            exercise = dataclasses.replace(exercise, messages=(*before, *exercise.messages))
        yield Case(exercise)


def _remembered(rng: Random) -> Case:
    """Ask for something that was told some turns ago, alone or among other things."""
    told, name = rng.choice(WORDS), rng.choice(NAMES)
    facts = [
        [Message("user", f"I have a {told}."), Message("assistant", f"A {told} is nice.")],
        [Message("user", f"My name is {name}."), Message("assistant", f"Hello, {name}.")],
    ]
    facts = facts[: rng.choice((1, 2))]
    rng.shuffle(facts)
    turns = [turn for fact in facts for turn in fact]
    turns.append(Message("user", rng.choice(MINE)))
    return Case(Exercise("remember", tuple(turns), f"a {told}"), MEMORY, "", f"I have a {told}.")


def library(seen: Mapping[str, str] | None = None, *, seed: int = 0) -> Library:
    """Return a library that says of every name what it likes, drawn by a seed."""
    rng = Random(f"library {seed}")
    drawn = {name: f"{name} likes the {rng.choice(WORDS)}." for name in NAMES}
    return Library(drawn | dict(seen or {}))


def lessons(modules: Modules, case: Case) -> list[Example]:
    """Return what a case teaches each module.

    Parameters
    ----------
    modules : Modules
        Whose prompts are used; it is not asked.
    case : Case

    Returns
    -------
    list of Example
    """
    messages, last = case.exercise.messages, case.exercise.messages[-1]
    template, control = modules.template, modules.control

    def lesson(prompt: list[int], said: list[int]) -> Example:
        trained = [False] * len(prompt) + [True] * len(said)
        return Example(Encoded([*prompt, *said], trained), language=True)

    def decision(question: str, answer: str) -> Example:
        prompt = modules.module_prompt([last], question)
        return lesson(prompt, [control(answer), template.end])

    searched, remembered = case.needs == SEARCH, case.needs == MEMORY
    found = [
        decision("is-search-required", "do-search" if searched else "do-not-search"),
        decision(
            "is-memory-required", "do-access-memory" if remembered else "do-not-access-memory"
        ),
    ]
    if searched:
        query = modules.module_prompt([last], "generate-query")
        found.append(lesson(query, template.response(case.query)))
    for turn in (m for m in messages if m.role == "user"):
        worth = remembered and turn is not last
        said = template.response(turn.content) if worth else [control("no-memory"), template.end]
        found.append(lesson(modules.module_prompt([turn], "generate-memory"), said))
    if case.needs:
        given = [case.sentence]
        if remembered:
            given = [m.content for m in messages[:-1] if m.role == "user"]
        listed = [Knowledge(case.needs, text) for text in given]
        prompt = [*modules.reply_prompt([last], listed)[:-1], control("generate-knowledge")]
        found.append(lesson(prompt, template.response(case.sentence)))
        alone = modules.reply_prompt([last], [Knowledge(case.needs, case.sentence)])
        found.append(lesson(alone, template.response(case.exercise.answer)))
    told = [Knowledge(case.needs, case.sentence)] if case.needs else []
    reply = modules.reply_prompt(messages, told)
    return [*found, lesson(reply, template.response(case.exercise.answer))]
