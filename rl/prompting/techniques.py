"""The techniques, a few lines each, beside the controls that say what each of them owes to what.

Every function makes a `Technique` of interface.py. What follows the question in a prompt is the cue
that the model has learnt (puzzles.py, facts.py).

Sources: chain of thought, Wei et al. 2022 (arXiv 2201.11903); self-consistency, Wang et al. 2022
(2203.11171); generated knowledge, Liu et al. 2021 (2110.08387); retrieval, Lewis et al. 2020
(2005.11401); ReAct, Yao et al. 2022 (2210.03629); program-aided, Gao et al. 2022 (2211.10435); tree
of thoughts, Yao et al. 2023 (2305.10601).
"""

from collections.abc import Callable, Generator, Mapping, Sequence

from .calculator import calculate
from .facts import retrieve
from .interface import Call, Question, Said, Technique
from .puzzles import GOAL, JUDGED, listed, moved
from .voting import majority, weighted_majority

Steps = Generator[Call, list[Said], str]
Tool = Callable[[str], str]
WORD = 3  # tokens of a reply that is a word, and its end
ROUNDS = 4  # in which tools may be used; LaMDA's limit


def last_answer(text: str) -> str:
    """Return what stands after the last "answer" of a reply, or nothing."""
    _, found, after = text.rpartition("answer")
    return after.strip() if found else ""


# --- one call ------------------------------------------------------------------------------------


def cued(cue: str = "answer", limit: int = WORD) -> Technique:
    """Ask with one cue, and take the reply as it is."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{question.text} {cue}", limit=limit)
        return said.text

    return technique


def reasoned(cue: str = "steps") -> Technique:
    """Chain of thought: let the model write first, and read the answer at the end of it."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{question.text} {cue}")
        return last_answer(said.text)

    return technique


def programmed() -> Technique:
    """Program-aided: the model writes an expression, a parser computes it."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{question.text} program", limit=12)
        return computed(said.text)

    return technique


def computed(expression: str) -> str:
    """Return an expression's value as text, nothing if it is none."""
    try:
        return str(calculate(expression))
    except ValueError:
        return ""


# --- several answers -----------------------------------------------------------------------------


def voted(n: int, temperature: float = 1.0) -> Technique:
    """Self-consistency: reason n times, and take the answer that comes most often."""

    def technique(question: Question) -> Steps:
        replies = yield Call(f"{question.text} steps", n, temperature)
        return majority([last_answer(said.text) for said in replies])

    return technique


def weighed(n: int, temperature: float = 1.0) -> Technique:
    """Let each reply's vote weigh as much as the reply is likely."""

    def technique(question: Question) -> Steps:
        replies = yield Call(f"{question.text} steps", n, temperature)
        answers = [last_answer(said.text) for said in replies]
        return weighted_majority(answers, [said.log_prob for said in replies])

    return technique


def likeliest(n: int, temperature: float = 1.0) -> Technique:
    """Best-of-n by the model's own judgement: of n replies, the one that is likeliest."""

    def technique(question: Question) -> Steps:
        replies = yield Call(f"{question.text} steps", n, temperature)
        return last_answer(max(replies, key=lambda said: said.log_prob).text)

    return technique


def any_of(n: int, temperature: float = 1.0) -> Technique:
    """Take the right answer if any of n replies has it: an oracle's choice, the most to be had."""

    def technique(question: Question) -> Steps:
        replies = yield Call(f"{question.text} steps", n, temperature)
        answers = [last_answer(said.text) for said in replies]
        return question.answer if question.answer in answers else answers[0]

    return technique


# --- several calls -------------------------------------------------------------------------------


def known_first() -> Technique:
    """Generated knowledge: one call writes the facts, another answers from them."""

    def technique(question: Question) -> Steps:
        (facts,) = yield Call(f"{question.text} know", limit=12)
        (said,) = yield Call(f"{facts.text} . {question.text} answer", limit=WORD)
        return said.text

    return technique


def told(facts: Callable[[Question], str]) -> Technique:
    """Answer from facts that come from elsewhere: right ones, or wrong ones."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{facts(question)} . {question.text} answer", limit=WORD)
        return said.text

    return technique


def asked_as_one(first: str = "reverse", second: str = "second") -> Technique:
    """Ask for two tasks by one call, as no document does."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{second} {first} {question.text} answer", limit=WORD)
        return said.text

    return technique


def chained(first: str = "reverse", second: str = "second") -> Technique:
    """Prompt chaining: what one task makes is what the next one is asked about."""

    def technique(question: Question) -> Steps:
        (said,) = yield Call(f"{first} {question.text} answer", limit=8)
        (said,) = yield Call(f"{second} {said.text} answer", limit=WORD)
        return said.text

    return technique


def retrieved(k: int) -> Technique:
    """Retrieval: put the k documents that share most words with the question before it."""

    def technique(question: Question) -> Steps:
        documents = " . ".join(retrieve(question.text, question.documents, k))
        (said,) = yield Call(f"{documents} . {question.text} answer", limit=WORD)
        return said.text

    return technique


# --- tools ---------------------------------------------------------------------------------------


def tools_of(question: Question) -> dict[str, Tool]:
    """Return the tools that a question comes with."""
    return {"calculate": computed, "lookup": lambda name: question.ages.get(name.strip(), "")}


def observed(action: str, tools: Mapping[str, Tool]) -> str:
    """Use the tool that an action names.

    Parameters
    ----------
    action : str
        Such as "calculate 3 + 4".
    tools : mapping of str to callable

    Returns
    -------
    str
        What the tool says; nothing if there is no such tool, or nothing comes of it, as of what
        cannot be parsed or a division by 0.
    """
    name, _, argument = action.strip().partition(" ")
    return tools[name](argument) if name in tools else ""


def acted(
    tools: Callable[[Question], Mapping[str, Tool]] = tools_of, rounds: int = ROUNDS
) -> Technique:
    """ReAct: act, see what comes of it, act again; after `rounds`, an answer is forced."""

    def technique(question: Question) -> Steps:
        prompt = question.text
        for _ in range(rounds):
            (said,) = yield Call(f"{prompt} act", limit=6)
            name, _, argument = said.text.partition(" ")
            if name == "finish":
                return argument
            seen = observed(said.text, tools(question))
            prompt = " ".join(f"{prompt} act {said.text} see {seen}".split())
        (said,) = yield Call(f"{prompt} answer", limit=WORD)
        return said.text

    return technique


# --- search --------------------------------------------------------------------------------------


def searched(width: int, proposals: int = 6) -> Technique:
    """Tree of thoughts: propose moves, judge where they lead, keep the best `width`; go on."""

    def technique(question: Question) -> Steps:
        states: list[tuple[int, ...]] = [question.numbers]
        for left in range(len(question.numbers) - 1, 0, -1):
            states = yield from _proposed(states, proposals)
            if left > 1 and len(states) > width:
                judged = yield from _judged(states)
                # Sorting is stable: of states that are judged alike, the first ones stay.
                states = sorted(states, key=lambda state: not judged[state])[:width]
        return str(GOAL) if (GOAL,) in states else ""

    return technique


def _proposed(
    states: Sequence[tuple[int, ...]], n: int
) -> Generator[Call, list[Said], list[tuple[int, ...]]]:
    """Let the model propose moves from each state; return where they lead, each place once."""
    reached: dict[tuple[int, ...], None] = {}
    for state in states:
        replies = yield Call(f"{listed(state)} move", n, 1.0, limit=5)
        for said in replies:
            left = moved(state, said.text)
            if left is not None:
                reached[left] = None
    return list(reached)


def _judged(
    states: Sequence[tuple[int, ...]],
) -> Generator[Call, list[Said], dict[tuple[int, ...], bool]]:
    """Let the model judge each state, by one call, whether it can still make 10."""
    judged = {}
    for state in states:
        (said,) = yield Call(f"{listed(state)} value", limit=WORD)
        judged[state] = said.text == JUDGED[True]
    return judged


def tried(chains: int) -> Technique:
    """Try whole chains of moves, one after another, until one makes 10: without judgement."""

    def technique(question: Question) -> Steps:
        state: tuple[int, ...] | None = None
        for _ in range(chains):
            state = question.numbers
            while state is not None and len(state) > 1:
                (said,) = yield Call(f"{listed(state)} move", 1, 1.0, limit=5)
                state = moved(state, said.text)
            if state == (GOAL,):
                return str(GOAL)
        return str(state[0]) if state else ""

    return technique
