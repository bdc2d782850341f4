"""From what people say of an answer to what is trained: corrections, thumbs and words.

    corrections   what should have been said               fine-tuning on it
    thumbs        good or not                              DIRECTOR's second head
    words         "You must say blue."                     (1) learnt as if they were a reply
                                                           (2) JUICER: a corrector turns them into
                                                               what should have been said

JUICER (Shi et al. 2022, arXiv 2210.15893): a corrector learns (context, bad reply, feedback) →
better reply from the few corrections that there are; it then corrects every bad reply that got
words alone. Of several tries the one stays that the satisfaction judge likes best, and where it
likes none, the reply is left out: a bad correction teaches more harm than none.

The corrector's input is a conversation: the turns so far, the bad reply, the feedback as the user's
next turn after a control token, and then the assistant's turn, which is the better reply.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ....kernels.model.gpt import GPT
from ...data.dialogue import Encoded, Message, Template
from ...data.records import Feedback
from ...stages.generation import generate
from .judge import Judge, Judged
from .training import Example, answer

MARK = "<|feedback|>"
GOOD_ENOUGH = 0.5


class Correction(NamedTuple):
    """A bad reply, what was said of it, and what should have been said.

    Attributes
    ----------
    about : Feedback
    better : str
    """

    about: Feedback
    better: str


def as_language(template: Template, messages: Sequence[Message], reply: str) -> Example:
    """Return a reply that the generator is to learn."""
    return Example(answer(template, messages, reply), language=True)


def corrector_prompt(template: Template, about: Feedback) -> list[int]:
    """Encode a bad reply and the words about it, up to where the better reply begins."""
    said = (*about.messages, Message("assistant", about.completion))
    mark = template.tokenizer.special_tokens.get(MARK, template.speaker["user"])
    feedback = template.conversation([Message("user", about.feedback)]).tokens
    return [
        *template.conversation(said).tokens, mark, *feedback, template.speaker["assistant"],
    ]  # fmt: skip


def corrector_example(template: Template, correction: Correction) -> Example:
    """Return what teaches a corrector."""
    before = corrector_prompt(template, correction.about)
    better = template.response(correction.better)
    encoded = Encoded([*before, *better], [False] * len(before) + [True] * len(better))
    return Example(encoded, language=True)


def correct(
    corrector: GPT,
    template: Template,
    words: Sequence[Feedback],
    judge: Judge,
    *,
    tries: int = 4,
    max_response: int = 16,
    seed: int = 0,
    threshold: float = GOOD_ENOUGH,
) -> list[Correction]:
    """Correct what got words alone.

    Parameters
    ----------
    corrector : GPT
    template : Template
    words : sequence of Feedback
    judge : Judge
    tries : int
        Candidates for each; the first is the likeliest, the others are sampled.
    max_response : int
        Tokens.
    seed : int
    threshold : float
        A correction that the judge gives less is left out. Inclusive: one that has it stays.

    Returns
    -------
    list of Correction
        Fewer than `words`, where all tries of one were judged bad.
    """
    prompts = [corrector_prompt(template, about) for about in words]
    candidates: list[list[str]] = [[] for _ in words]
    for number in range(tries):
        said = generate(
            corrector, prompts, max_new_tokens=max_response, stop_tokens=(template.end,),
            temperature=0.0 if number == 0 else 1.0, seed=seed + number,
        )  # fmt: skip
        for found, ids in zip(candidates, said.token_lists(), strict=True):
            if ids and ids[-1] == template.end:  # what the limit cut is no correction
                found.append(template.text(ids))
    kept = []
    for about, found in zip(words, candidates, strict=True):
        if not found:
            continue
        scores = judge.good([Judged(about.messages, text) for text in found])
        best = max(range(len(found)), key=scores.__getitem__)  # of equal ones the first
        if scores[best] >= threshold:
            kept.append(Correction(about, found[best]))
    return kept
