"""LaMDA's toolset: the model asks, a program answers, and then the model speaks to the user.

    <|user|> How old are Ada and Paul together?<|end|>
    <|assistant|><|tools|> Ada<|end|>            <|system|> Ada is 7, page 3<|end|>
    <|assistant|><|tools|> Paul<|end|>           <|system|> Paul is 5, page 8<|end|>
    <|assistant|><|tools|> 7 + 5<|end|>          <|system|> 12<|end|>
    <|assistant|><|to-user|> 12<|end|>

The toolset takes a string and returns a list of strings, those of the calculator before those of
the lookup (the paper's translator is left out). Nothing a model writes is run: what a parser or a
dictionary cannot make sense of returns nothing, and the talk goes on. After `ROUNDS` questions an
answer is forced. Facts are drawn anew for each question, so that no weight can know them.

Source: LaMDA (arXiv 2201.08239) section 6.2.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

from ....core.dialogue.lamda import Grounding, grounding
from ....kernels.model.gpt import GPT
from ...data.dialogue import Encoded, Template
from ...data.tasks import NAMES
from ...prompting.calculator import calculate
from ...stages.generation import generate
from ..base import TOOLS

ROUNDS = 4
LIMIT = 12  # tokens of a question to the tools, or of an answer
ASK, ANSWER = TOOLS
UNKNOWN = "I do not know."
KINDS = ("age", "together", "sum", "nobody")


class Fact(NamedTuple):
    """What a page says: somebody's age."""

    age: int
    page: int


Facts = Mapping[str, Fact]


@dataclasses.dataclass(frozen=True)
class Question:
    """Something to be looked up or calculated.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    text : str
        What the user says.
    answer : str
        The right answer, with its page where it is from one.
    asks : tuple of str
        What a good model asks the tools, in order.
    facts : mapping of str to Fact
        What the lookup knows.
    """

    kind: str
    text: str
    answer: str
    asks: tuple[str, ...]
    facts: Facts


def toolset(query: str, facts: Facts) -> list[str]:
    """Ask calculator and lookup.

    Parameters
    ----------
    query : str
        Whatever a model wrote.
    facts : mapping of str to Fact

    Returns
    -------
    list of str
        The calculator's results before the lookup's; none for what neither can read, such as an
        unknown name, half an expression, or a division by 0.
    """
    return [*_calculated(query), *_looked_up(query, facts)]


def _calculated(query: str) -> list[str]:
    try:
        return [str(calculate(query))]
    except ValueError:
        return []


def _looked_up(query: str, facts: Facts) -> list[str]:
    name = query.strip()
    return [f"{name} is {facts[name].age}, page {facts[name].page}"] if name in facts else []


# --- what is asked -------------------------------------------------------------------------------


def facts_of(rng: Random) -> dict[str, Fact]:
    """Draw what the lookup knows: half of the names."""
    return {
        name: Fact(rng.randint(1, 19), rng.randint(1, 9))
        for name in rng.sample(NAMES, len(NAMES) // 2)
    }


def draw_questions(seed: int) -> Iterator[Question]:
    """Draw questions without end, each kind as often, each with facts of its own."""
    rng = Random(f"tools {seed}")
    while True:
        for kind in KINDS:
            yield _question(kind, rng)


def _question(kind: str, rng: Random) -> Question:
    facts = facts_of(rng)
    first, second = rng.sample(sorted(facts), 2)
    a, b = facts[first].age, facts[second].age
    if kind == "age":
        text, answer = f"How old is {first}?", f"{a}, page {facts[first].page}"
        return Question(kind, text, answer, (first,), facts)
    if kind == "together":
        asks = (first, second, f"{a} + {b}")
        return Question(kind, f"How old are {first} and {second}?", str(a + b), asks, facts)
    if kind == "sum":
        x, y = rng.randint(1, 19), rng.randint(1, 19)
        return Question(kind, f"What is {x} plus {y}?", str(x + y), (f"{x} + {y}",), facts)
    nobody = rng.choice([name for name in NAMES if name not in facts])
    return Question(kind, f"How old is {nobody}?", UNKNOWN, (nobody,), facts)


def talk(template: Template, question: Question) -> Encoded:
    """Encode a talk with the tools as it should go: what the model writes is learnt."""
    found = begin(template, question.text)
    trained = [False] * len(found)
    for query in question.asks:
        said = _said(template, ASK, query)
        seen = _seen(template, toolset(query, question.facts))
        found += [*said, *seen]
        trained += [True] * len(said) + [False] * len(seen)
    answer = _said(template, ANSWER, question.answer)
    return Encoded([*found, *answer], [*trained, *[True] * len(answer)])


def begin(template: Template, text: str) -> list[int]:
    """Encode a question up to where the model speaks."""
    user, assistant = template.speaker["user"], template.speaker["assistant"]
    return [user, *template.response(text), assistant]


def _said(template: Template, control: str, text: str) -> list[int]:
    return [template.tokenizer.special_tokens[control], *template.response(text)]


def _seen(template: Template, results: Sequence[str]) -> list[int]:
    """Encode what the tools said, after which it is the model's turn."""
    system, assistant = template.speaker["system"], template.speaker["assistant"]
    return [system, *template.response(". ".join(results)), assistant]


# --- the loop ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Research:
    """What a model asked its tools, and what it said in the end.

    Attributes
    ----------
    asked : list of (str, list of str)
        Each question to the tools with what they returned.
    answer : str
    forced : bool
        Whether the model would have gone on asking.
    """

    asked: list[tuple[str, list[str]]] = dataclasses.field(default_factory=list)
    answer: str = ""
    forced: bool = False


def research(
    model: GPT,
    template: Template,
    questions: Sequence[tuple[list[int], Facts]],
    *,
    rounds: int = ROUNDS,
) -> list[Research]:
    """Let a model answer questions with its tools, all side by side.

    Parameters
    ----------
    model : GPT
    template : Template
    questions : sequence of (list of int, mapping)
        Of each the ids up to where the model speaks, and what the lookup knows.
    rounds : int
        The most questions to the tools; 0: the answer is forced at once.

    Returns
    -------
    list of Research
    """
    ids = template.tokenizer.special_tokens
    found = [Research() for _ in questions]
    contexts = [list(prompt) for prompt, _ in questions]
    going = list(range(len(questions)))
    for _ in range(rounds):
        said = _continued(model, template, [contexts[i] for i in going])
        still = []
        for i, response in zip(going, said, strict=True):
            text = _text(template, response)
            if response[0] != ids[ASK]:  # to the user, or without saying to whom
                found[i].answer = text
                continue
            results = toolset(text, questions[i][1])
            found[i].asked.append((text, results))
            ended = response if template.end in response else [*response, template.end]
            contexts[i] += [*ended, *_seen(template, results)]
            still.append(i)
        going = still
        if not going:
            return found
    said = _continued(model, template, [[*contexts[i], ids[ANSWER]] for i in going])
    for i, response in zip(going, said, strict=True):
        found[i].answer, found[i].forced = _text(template, response), True
    return found


def _text(template: Template, response: Sequence[int]) -> str:
    """Read what a model wrote, without the tokens that say to whom."""
    controls = {template.tokenizer.special_tokens[control] for control in TOOLS}
    return template.text([i for i in response if i not in controls])


def _continued(model: GPT, template: Template, prompts: list[list[int]]) -> list[list[int]]:
    return generate(
        model, prompts, max_new_tokens=LIMIT, temperature=0.0, stop_tokens=(template.end,)
    ).token_lists()


# --- what is backed by a source ------------------------------------------------------------------


def grounded(questions: Sequence[Question], answers: Sequence[str]) -> Grounding:
    """Measure how much of what is claimed a source supports.

    A claim is an answer that begins with a number; it is supported if this is the right one. An age
    is no common knowledge, and is cited if its page is named rightly.

    Parameters
    ----------
    questions : sequence of Question
    answers : sequence of str
        One to each.

    Returns
    -------
    Grounding
    """
    counts = count_claims(questions, answers)
    return grounding(len(answers), *counts)


class Claims(NamedTuple):
    """Of some answers: those that claim, are supported, are no common knowledge, and are cited."""

    claiming: int
    supported: int
    uncommon: int
    cited: int


def count_claims(questions: Sequence[Question], answers: Sequence[str]) -> Claims:
    """Count claims; arguments as in `grounded`."""
    claiming = [(q, a) for q, a in zip(questions, answers, strict=True) if _number(a)]
    uncommon = [(q, a) for q, a in claiming if q.kind in ("age", "nobody")]
    return Claims(
        len(claiming), sum(_number(a) == _number(q.answer) for q, a in claiming),
        len(uncommon), sum(a.strip() == q.answer for q, a in uncommon),
    )  # fmt: skip


def _number(answer: str) -> str:
    """Return the number that an answer begins with; empty where it claims none."""
    first = answer.split(",")[0].strip()
    return first if first.isascii() and first.isdecimal() else ""
