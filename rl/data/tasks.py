"""Exercises whose answers a program can grade: the embedded default for SFT, rewards and PPO.

InstructGPT's labellers cannot be asked again, so here a grader stands for what people truly want:
the *gold* reward, between 0 and 1. The reward model never sees it; it sees noisy comparisons of
answers, as labellers give them. Gold therefore shows what a real run cannot: when the policy goes
on pleasing the reward model and no longer its users (arXiv 2210.10760).

Eight families, from copying to a conversation of several turns. Most have a single right answer and
partial credit for being near; `list` has many. Demonstrations are imperfect on purpose, as people's
are: part of them chatter, drop a word or are wrong, so that imitation alone leaves room above it.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random

from .dialogue import Message


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Small worlds: a model of less than a million parameters has minutes to learn every word.
WORDS = _split("apple bird book door fish house key lamp moon river stone tree")
NAMES = _split("Ada Alan Anna Carl Clara David Emma Grace Ida John Paul Vera")
OPPOSITES = _split(
    "hot/cold big/small fast/slow up/down left/right old/new dark/light open/closed "
    "high/low long/short early/late rich/poor"
)
CATEGORIES = {
    "fruits": _split("banana cherry grape lemon mango melon peach plum"),
    "animals": _split("bear cat cow dog fox goat horse lion"),
    "colours": _split("black blue brown green pink purple red white"),
    "months": _split("January March April June July August October December"),
}
NUMBERS = _split("zero one two three four five six")
LISTED = 2  # members of a category that are asked for
HELD_OUT_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One conversation in which it is the assistant's turn, and what is wanted of it.

    Attributes
    ----------
    family : str
        A key of `FAMILIES`.
    messages : tuple of Message
        The turns so far.
    answer : str
        A perfect answer.
    """

    family: str
    messages: tuple[Message, ...]
    answer: str

    def is_held_out(self) -> bool:
        """Say whether this conversation is kept for evaluation: its own text decides."""
        text = "\n".join(message.content for message in self.messages)
        return zlib.crc32(text.encode()) % 1000 < 1000 * HELD_OUT_SHARE


GREETINGS = ("", "Hello. ", "Please help. ", "A question: ", "Now: ", "Quick: ")


def _ask(family: str, question: str, answer: str) -> Exercise:
    return Exercise(family, (Message("user", question),), answer)


def _greeted(rng: Random, question: str) -> str:
    """Put a greeting first: a family of few questions is learnt from many conversations."""
    return rng.choice(GREETINGS) + question


# --- the families: each draws one exercise -------------------------------------------------------


def repeat(rng: Random) -> Exercise:
    """Copy two or three words."""
    words = " ".join(rng.sample(WORDS, rng.choice((2, 3))))
    return _ask("repeat", rng.choice(("Say: {}", "Repeat: {}")).format(words), words)


def reverse(rng: Random) -> Exercise:
    """Turn the order of two or three words round."""
    words = rng.sample(WORDS, rng.choice((2, 3)))
    question = rng.choice(("Reverse: {}", "Say backwards: {}")).format(" ".join(words))
    return _ask("reverse", question, " ".join(reversed(words)))


def pick_word(rng: Random) -> Exercise:
    """Pick a word by its place."""
    words = rng.sample(WORDS, rng.choice((2, 3, 4)))
    which, index = rng.choice((("first", 0), ("last", -1)))
    return _ask("pick", f"What is the {which} word of: {' '.join(words)}", words[index])


def opposite(rng: Random) -> Exercise:
    """Know an opposite."""
    pair = rng.choice(OPPOSITES).split("/")
    if pair[1] != "light":  # two words have this opposite
        rng.shuffle(pair)
    questions = ("What is the opposite of {}?", "The opposite of {}?", "Opposite: {}")
    return _ask("opposite", _greeted(rng, rng.choice(questions).format(pair[0])), pair[1])


def larger(rng: Random) -> Exercise:
    """Compare two numbers."""
    numbers = rng.sample(range(20), 2)
    which, pick = rng.choice((("larger", max), ("smaller", min)))
    return _ask("compare", f"Which is {which}, {numbers[0]} or {numbers[1]}?", str(pick(numbers)))


def count(rng: Random) -> Exercise:
    """Count a few words."""
    n = rng.randint(1, 6)
    return _ask("count", f"How many words: {' '.join(rng.sample(WORDS, n))}", NUMBERS[n])


def name_two(rng: Random) -> Exercise:
    """Name two different members of a category: many answers are right."""
    category = rng.choice(sorted(CATEGORIES))
    questions = ("Name two {}.", "Tell me two {}.", "Two {}, please.", "List two {}.")
    answer = ", ".join(rng.sample(CATEGORIES[category], LISTED))
    return _ask("list", _greeted(rng, rng.choice(questions).format(category)), answer)


def remember(rng: Random) -> Exercise:
    """Remember, some turns later, what the user said."""
    name, thing = rng.choice(NAMES), rng.choice(WORDS)
    facts = [
        (f"My name is {name}.", f"Hello, {name}.", "What is my name?", name),
        (f"I have a {thing}.", f"A {thing} is nice.", "What do I have?", f"a {thing}"),
    ]
    rng.shuffle(facts)
    asked = rng.choice(facts)
    turns = facts if rng.random() < 0.5 else [asked]
    messages = [
        Message(role, text)
        for told, reply, _, _ in turns
        for role, text in (("user", told), ("assistant", reply))
    ]
    return Exercise("remember", (*messages, Message("user", asked[2])), asked[3])


FAMILIES: dict[str, Callable[[Random], Exercise]] = {
    "repeat": repeat,
    "reverse": reverse,
    "pick": pick_word,
    "opposite": opposite,
    "compare": larger,
    "count": count,
    "list": name_two,
    "remember": remember,
}


def exercises(seed: int, *, held_out: bool) -> Iterator[Exercise]:
    """Draw exercises without end, each family as often, in a fixed order for a seed.

    Parameters
    ----------
    seed : int
        Of the draw.
    held_out : bool
        Only those kept for evaluation, or only the others: no conversation is in both.

    Yields
    ------
    Exercise
    """
    rng = Random(f"exercises {seed} {held_out}")
    while True:
        for draw in FAMILIES.values():
            exercise = draw(rng)
            while exercise.is_held_out() != held_out:
                exercise = draw(rng)
            yield exercise


# --- the gold reward -----------------------------------------------------------------------------

CHATTER_PENALTY = 0.1  # for each word too many, at most half of the reward


def gold(exercise: Exercise, response: str) -> float:
    """Grade an answer.

    A perfect answer, and nothing else, gets 1. A right answer among other words loses
    `CHATTER_PENALTY` for each of these, but keeps half. Of a wrong answer of several words, each
    word in its right place earns a share of one half.

    Parameters
    ----------
    exercise : Exercise
        What was asked.
    response : str
        What was answered.

    Returns
    -------
    float
        Between 0 and 1.
    """
    if exercise.family == "list":
        return _gold_list(exercise, response)
    wanted, said = _words(exercise.answer), _words(response)
    surplus = len(said) - len(wanted)
    if any(said[i : i + len(wanted)] == wanted for i in range(surplus + 1)):
        return 1.0 - min(CHATTER_PENALTY * surplus, 0.5)
    in_place = sum(a == b for a, b in zip(wanted, said, strict=False))
    return 0.5 * in_place / max(len(wanted), len(said))


def _gold_list(exercise: Exercise, response: str) -> float:
    """Grade a list: each member asked for earns its share; repeated or foreign words cost."""
    category = next(name for name in CATEGORIES if name in exercise.messages[-1].content)
    members = {member.lower() for member in CATEGORIES[category]}
    said = [word for word in _words(response) if word != "and"]
    right = set(said) & members
    wrong = len(said) - len(right)
    return max(0.0, min(len(right), LISTED) / LISTED - CHATTER_PENALTY * wrong)


def _words(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace(".", " ").split()


def passes(exercise: Exercise, response: str) -> bool:
    """Say whether an answer is perfect.

    Parameters
    ----------
    exercise, response
        As in `gold`.

    Returns
    -------
    bool
    """
    return gold(exercise, response) > 1.0 - 1e-9


# --- people --------------------------------------------------------------------------------------


def demonstration(exercise: Exercise, rng: Random, carelessness: float) -> str:
    """Answer as a labeller does: mostly well.

    Parameters
    ----------
    exercise : Exercise
        What was asked.
    rng : random.Random
        Decides what goes wrong.
    carelessness : float
        Share of answers with a fault: chatter around it, a word lost, or a word that is wrong.

    Returns
    -------
    str
    """
    if rng.random() >= carelessness:
        return exercise.answer
    words = exercise.answer.split()
    at = rng.randrange(len(words))
    faults = [
        f"I think it is {exercise.answer}",
        f"Well, {exercise.answer} of course",
        " ".join([*words[:at], rng.choice(WORDS), *words[at + 1 :]]),
    ]
    if len(words) > 1:
        faults.append(" ".join(words[:at] + words[at + 1 :]))
    return rng.choice(faults)


def rank(golds: Sequence[float], rng: Random, noise: float) -> list[int]:
    """Rank answers as a labeller does: better ones mostly before worse ones.

    A labeller's impression of an answer is its gold reward plus Gumbel noise, and the answers are
    ranked by impression: the Plackett-Luce model, in which any two answers are compared as in
    Bradley and Terry's, P(i before j) = σ((gold_i − gold_j) / noise).

    Parameters
    ----------
    golds : sequence of float
        The answers' gold rewards.
    rng : random.Random
        The labeller.
    noise : float
        Scale of the noise; 0 for a labeller without fault.

    Returns
    -------
    list of int
        For each answer its rank, 0 the best.
    """
    impressions = [gold_ + noise * _gumbel(rng) for gold_ in golds]
    order = sorted(range(len(golds)), key=lambda i: -impressions[i])
    ranks = [0] * len(golds)
    for place, i in enumerate(order):
        ranks[i] = place
    return ranks


def _gumbel(rng: Random) -> float:
    return -math.log(-math.log(rng.random() or 1e-300))
