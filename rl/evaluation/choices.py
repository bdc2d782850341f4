"""Choosing among given answers by log P, in the ways that GPT-2, GPT-3 and their users do.

With ℓ(a) = Σ_t log P(token t of a | question, tokens before t):

    sum             ℓ(a)                                lm-evaluation-harness: acc
    per_token       ℓ(a) / tokens of a                  GPT-3's default
    per_character   ℓ(a) / characters of a              the harness: acc_norm
    per_byte        ℓ(a) / bytes of a in UTF-8          the harness: acc_bytes
    against         ℓ(a) − ℓ(a | "Answer:")             GPT-3: ARC, OpenBookQA, RACE
                                                        (with "" instead: acc_mutual_info)
    calibrated      p(a) / p̄(a), normalised             Zhao et al. 2021, arXiv 2102.09690

where p is the share of e^ℓ among the choices, and p̄ the mean of p over questions without content:
"N/A", "" and "[MASK]". Characters and bytes are those of the choice as it is written; the space
before it and an end that is scored with it count as tokens alone.

A sum favours short answers and common ones; a mean favours long ones, whose later tokens follow
from the first; `against` and `calibrated` take away what an answer has without the question.

Edge semantics: of equal scores the first choice is taken, and scores count as equal if they differ
by less than rounding does (`best`): p / p̄ can tie exactly and be told apart by float64 alone. An
empty answer is refused: it has no token, and a mean of none has no value.

Sources: Brown et al. 2020 (arXiv 2005.14165), section 2.4; lm-evaluation-harness 0.4.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...core.checks import refuse
from ...core.language.token_scores import log_softmax
from ...kernels.model.gpt import GPT
from .asking import Asking, Shot
from .log_probs import AT_ONCE, Request, continuation_log_probs

SCORES = ("sum", "per_token", "per_character", "per_byte", "against", "calibrated")
CONTEXT_FREE = "Answer:"
CONTENT_FREE = ("N/A", "", "[MASK]")
TOLERANCE = 1e-9  # relative, as float64 rounds sums of a few hundred terms


@dataclasses.dataclass(frozen=True)
class ChoiceScores:
    """What a model makes of the answers to one question.

    Attributes
    ----------
    choices : tuple of str
    token_log_probs : list of list of float
        For each choice log P of each of its tokens, after the question.
    free : list of float
        ℓ of each choice after the context-free text; empty: not asked.
    content_free : list of list of float
        [input, choice]: ℓ of each choice after each question without content; empty: not asked.
    tokens : list of list of int
        The ids that were scored.
    """

    choices: Sequence[str]
    token_log_probs: Sequence[Sequence[float]]
    free: Sequence[float] = ()
    content_free: Sequence[Sequence[float]] = ()
    tokens: Sequence[Sequence[int]] = ()

    def scores(self, method: str) -> np.ndarray:
        """Return each choice's score; the highest wins.

        Parameters
        ----------
        method : str
            One of `SCORES`.

        Returns
        -------
        numpy.ndarray [choice]

        Raises
        ------
        ValueError
            If there is no such method, what it needs was not asked, or a choice is empty.
        """
        empty = [i for i, tokens in enumerate(self.token_log_probs) if not len(tokens)]
        if empty or "" in self.choices:
            refuse("choices", "a text in each", "an empty one", "a mean over none has no value")
        sums = np.array([sum(tokens) for tokens in self.token_log_probs])
        if method == "sum":
            return sums
        if method == "per_token":
            return sums / [len(tokens) for tokens in self.token_log_probs]
        if method == "per_character":
            return sums / [len(choice) for choice in self.choices]
        if method == "per_byte":
            return sums / [len(choice.encode("utf-8")) for choice in self.choices]
        if method == "against" and len(self.free):
            return sums - self.free
        if method == "calibrated" and len(self.content_free):
            return calibrated(sums, np.array(self.content_free))
        if method in SCORES:
            refuse("method", "a score whose contexts were asked", repr(method), "not in `methods`")
        refuse("method", f"one of {', '.join(SCORES)}", repr(method))

    def pick(self, method: str) -> int:
        """Return the choice that a score prefers, of equal ones the first."""
        return best(self.scores(method))

    @property
    def one_begins_another(self) -> bool:
        """Whether a choice is what another one begins with, which then can never have a higher sum.

        An end that is scored with each of them mends it (asking.py).
        """
        ids = [list(tokens) for tokens in self.tokens]
        return any(a != b and b[: len(a)] == a for a in ids for b in ids)


class Asked(NamedTuple):
    """A question with its choices, and the examples to show before it."""

    question: str
    choices: Sequence[str]
    shots: Sequence[Shot] = ()


def best(scores: np.ndarray, tolerance: float = TOLERANCE) -> int:
    """Return the place of the highest score, of equal ones the first.

    Parameters
    ----------
    scores : numpy.ndarray [choice]
        Finite.
    tolerance : float
        Scores that lie below the highest by at most this share of it are equal to it.

    Returns
    -------
    int
    """
    scores = np.asarray(scores, np.float64)
    if not scores.size or not np.isfinite(scores).all():
        refuse("scores", "finite numbers, one at least", repr(scores))
    highest = scores.max()
    return int(np.argmax(scores >= highest - tolerance * max(abs(highest), 1.0)))


def calibrated(log_probs: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Divide what a model gives each label by what it gives it without content, and normalise.

    Parameters
    ----------
    log_probs : numpy.ndarray [choice]
        ℓ of each label after the question.
    content_free : numpy.ndarray [input, choice]
        The same after each question without content.

    Returns
    -------
    numpy.ndarray [choice]
        Shares that sum to 1.
    """
    without = np.exp(log_softmax(content_free)).mean(axis=0)  # p̄: each input's shares, averaged
    return np.exp(log_softmax(log_softmax(log_probs) - np.log(without)))


def length_penalised(log_prob: float, tokens: int, alpha: float = 0.6) -> float:
    """Score an answer of a beam search: log P / ((5 + n) / 6)^α (Wu et al., arXiv 1609.08144).

    Parameters
    ----------
    log_prob : float
        Summed over the answer.
    tokens : int
        n, at least 1.
    alpha : float
        0 leaves the sum; GPT-3 takes 0.6.

    Returns
    -------
    float
    """
    return log_prob / ((5 + tokens) / 6) ** alpha


def score_choices(
    model: GPT,
    asking: Asking,
    items: Sequence[Asked],
    *,
    methods: Sequence[str] = SCORES,
    context_free: str = CONTEXT_FREE,
    content_free: Sequence[str] = CONTENT_FREE,
    at_once: int = AT_ONCE,
) -> list[ChoiceScores]:
    """Score the choices of many questions.

    Parameters
    ----------
    model : GPT
    asking : Asking
        `Plain` or `Chatting`.
    items : sequence of Asked
    methods : sequence of str
        The scores that will be wanted: each context that none of them needs is spared.
    context_free : str
        Of `against`; "": a document's beginning, as lm-evaluation-harness has it.
    content_free : sequence of str
        Of `calibrated`: they take the question's place, after the same shots.
    at_once : int
        As in `continuation_log_probs`.

    Returns
    -------
    list of ChoiceScores
        In the items' order.

    Raises
    ------
    ValueError
        If a question does not fit into the model's context (`shots.fitted` sees to shots), or as in
        `pair`.
    """
    unknown = [method for method in methods if method not in SCORES]
    if unknown:
        refuse("methods", f"some of {', '.join(SCORES)}", repr(unknown[0]))
    free_of = content_free if "calibrated" in methods else ()
    # Many items share a context-free text, or their shots: each request is scored once.
    wanted: dict[Key, Request] = {}

    def ask(item: Asked, question: str, bare: bool = False) -> list[Key]:
        keys = [Key(() if bare else tuple(item.shots), question, c, bare) for c in item.choices]
        for key in keys:
            if key not in wanted:
                wanted[key] = key.request(asking)
        return keys

    asked = [ask(item, item.question) for item in items]
    against = [ask(item, context_free, bare=True) for item in items if "against" in methods]
    without = [[ask(item, text) for text in free_of] for item in items]
    requests = list(wanted.values())
    log_probs = continuation_log_probs(model, requests, at_once=at_once)
    found = dict(zip(wanted, log_probs, strict=True))
    return [
        ChoiceScores(
            item.choices,
            [found[key] for key in asked[i]],
            [sum(found[key]) for key in against[i]] if against else (),
            [[sum(found[key]) for key in row] for row in without[i]],
            [wanted[key].continuation for key in asked[i]],
        )
        for i, item in enumerate(items)
    ]


class Key(NamedTuple):
    """What is scored: a choice, after a question or after a bare text."""

    shots: tuple[Shot, ...]
    question: str
    choice: str
    is_bare: bool

    def request(self, asking: Asking) -> Request:
        """Return it as ids."""
        if not self.choice:
            refuse("choices", "a text in each", "an empty one", "a mean over none has no value")
        if self.is_bare:
            return asking.after(self.question, self.choice)
        return asking.request(self.shots, self.question, self.choice)
