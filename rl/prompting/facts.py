"""Questions of words: facts in the weights, facts in documents, facts behind a tool, and a chain.

    colour of home of bade know      bade lives in oslo , oslo is red       from the weights
    bade lives in oslo , oslo is red . colour of home of bade answer        red
    kilo keeps fox . bade keeps cow . pet of bade answer                    cow, or: unknown
    ages bade + kilo act                                                    lookup bade
    ages bade + kilo act lookup bade see 7 act                              lookup kilo
    reverse moon tree key answer                                            key tree moon
    second key tree moon answer                                             tree

Half of the names are asked directly in training ("colour of home of bade answer"), the others are
not, though the model has read where they live: only those are asked for in an evaluation.
"""

from collections.abc import Sequence
from random import Random

from ..data.tasks import CATEGORIES, WORDS
from .interface import Question
from .puzzles import NAMES, Document

TOWNS = ("bern", "cork", "faro", "kyiv", "lima", "nice", "oslo", "pisa", "riga", "rome")
COLOURS = CATEGORIES["colours"]
PETS = CATEGORIES["animals"]
UNKNOWN = "unknown"
STATEMENTS = ("{} keeps {}", "{} likes {}", "{} visits {}")


# --- facts in the weights ------------------------------------------------------------------------

_drawn = Random("where everybody lives")
HOME = {name: _drawn.choice(TOWNS) for name in NAMES}
COLOUR = {town: _drawn.choice(COLOURS) for town in TOWNS}
ASKED_IN_TRAINING = frozenset(_drawn.sample(NAMES, len(NAMES) // 2))


def home_of(name: str) -> Question:
    """Ask for the colour of the town where somebody lives."""
    return Question(
        "home", f"colour of home of {name}", COLOUR[HOME[name]],
        documents=(knowledge(name, HOME[name], COLOUR[HOME[name]]),),
    )  # fmt: skip


def knowledge(name: str, town: str, colour: str) -> str:
    """Write the two facts that a question of a home needs."""
    return f"{name} lives in {town} , {town} is {colour}"


def documents_of_home(name: str, rng: Random) -> list[Document]:
    """Return what is known of a name, what follows from facts that are given, and an answer."""
    question = home_of(name)
    reader, town, colour = rng.choice(NAMES), rng.choice(TOWNS), rng.choice(COLOURS)
    given = knowledge(reader, town, colour)  # any facts: what is read counts, not what is known
    documents = [
        Document(f"{question.text} know", question.documents[0]),
        Document(f"{given} . colour of home of {reader} answer", colour),
    ]
    if name in ASKED_IN_TRAINING:
        documents.append(Document(f"{question.text} answer", question.answer))
    return documents


# --- facts in documents --------------------------------------------------------------------------


def draw_pet(rng: Random) -> Question:
    """Ask for somebody's pet, which one of two dozen sentences tells."""
    names = rng.sample(NAMES, 8)
    pets = {name: rng.choice(PETS) for name in names}
    sentences = [
        template.format(name, thing)
        for name in names
        for template, thing in zip(
            STATEMENTS, (pets[name], rng.choice(COLOURS), rng.choice(TOWNS)), strict=True
        )
    ]
    rng.shuffle(sentences)
    return Question("pet", f"pet of {names[0]}", pets[names[0]], documents=tuple(sentences))


def documents_of_pet(question: Question, rng: Random) -> list[Document]:
    """Return some sentences to read, among them mostly the one that tells."""
    name = question.text.split()[-1]
    telling = f"{name} keeps {question.answer}"
    others = [text for text in question.documents if text != telling]
    # Sentences about the same name are what a search by words finds beside the right one.
    others.sort(key=lambda text: (name not in text.split(), rng.random()))
    chosen = others[: rng.randint(0, 2)] + rng.sample(others[2:], rng.randint(0, 2))
    told = rng.random() < 0.75
    chosen += [telling] if told or not chosen else []
    rng.shuffle(chosen)
    answer = question.answer if telling in chosen else UNKNOWN
    return [Document(f"{' . '.join(chosen)} . {question.text} answer", answer)]


# --- facts behind a tool -------------------------------------------------------------------------


def draw_ages(rng: Random) -> Question:
    """Ask for a sum or a product of two ages, which nothing but a tool knows."""
    first, second = rng.sample(NAMES, 2)
    ages = {first: rng.randint(1, 9), second: rng.randint(1, 9)}
    sign = rng.choice("+*")
    answer = ages[first] + ages[second] if sign == "+" else ages[first] * ages[second]
    known = {name: str(age) for name, age in ages.items()}
    return Question("ages", f"ages {first} {sign} {second}", str(answer), ages=known)


def documents_of_ages(question: Question, rng: Random) -> list[Document]:
    """Return each turn of a talk with the tools, the answer after it, and a guess without them."""
    _, first, sign, second = question.text.split()
    sees = [question.ages[first], question.ages[second], question.answer]
    acts = [f"lookup {first}", f"lookup {second}", f"calculate {sees[0]} {sign} {sees[1]}"]
    prompt, documents = question.text, []
    for act, seen in zip(acts, sees, strict=True):
        documents.append(Document(f"{prompt} act", act))
        prompt = f"{prompt} act {act} see {seen}"
    documents.append(Document(f"{prompt} act", f"finish {question.answer}"))
    documents.append(Document(f"{prompt} answer", question.answer))
    documents.append(Document(f"{question.text} answer", question.answer))
    return documents


# --- a chain of two tasks ------------------------------------------------------------------------


def draw_chain(rng: Random) -> Question:
    """Ask for the second word of some words that are turned round first."""
    words = rng.sample(WORDS, rng.choice((3, 4, 5)))
    return Question("chain", " ".join(words), words[-2])


def documents_of_chain(question: Question, rng: Random) -> list[Document]:
    """Return each of the two tasks by itself; never both together."""
    words = question.text.split()
    others = rng.sample(WORDS, len(words))
    return [
        Document(f"reverse {question.text} answer", " ".join(reversed(words))),
        Document(f"second {' '.join(others)} answer", others[1]),
    ]


def overlap(question: str, document: str) -> int:
    """Count the words that a document shares with a question, each once."""
    return len(set(question.split()) & set(document.split()))


def retrieve(question: str, documents: Sequence[str], k: int) -> list[str]:
    """Return the `k` documents that share most words with a question, of equals the first."""
    return sorted(documents, key=lambda document: -overlap(question, document))[:k]
