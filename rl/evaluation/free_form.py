"""Answers in the model's own words: exact match, confidence, and pass@k.

A model answers greedily, by beam search (GPT-3: 4 beams, length penalty 0.6), or is sampled from n
times. An answer is right if it is one of the completions, spaces around it apart.

    pass@k = mean over prompts of 1 − C(n − c, k) / C(n, k)      c of n samples are right

is the chance that one of k samples drawn from the n is right, without bias; 1 − (1 − c/n)^k would
be too low. (Chen et al. 2021, arXiv 2107.03374.) With fewer than k wrong ones it is 1; without a
right one 0.

A confident answer should be right more often: `most_confident` compares the answers that the model
gave the highest log P with all of them, as GPT-2's paper does for its surest 1%.

An answer that is cut by its longest length is compared as it is, and counted (`n_cut`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..stages.generation import generate
from .asking import Asking, Shot
from .beam import beam_search
from .items import FreeItem
from .multiple_choice import at_line
from .shots import drawn, fitted

AT_ONCE = 64  # prompts that are answered together


@dataclasses.dataclass(frozen=True)
class FreeAnswer:
    """What a model said to one prompt.

    Attributes
    ----------
    item : FreeItem
    shots : tuple of Shot
        Those that fitted.
    texts : list of str
        One answer, or as many as were sampled.
    log_probs : list of float
        Of each, its end included if it has one.
    n_cut : int
        Answers without an end.
    """

    item: FreeItem
    shots: tuple[Shot, ...]
    texts: list[str]
    log_probs: list[float]
    n_cut: int

    @property
    def rights(self) -> list[bool]:
        """Whether each answer is one of the completions."""
        wanted = {completion.strip() for completion in self.item.completions}
        return [text.strip() in wanted for text in self.texts]

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return dataclasses.asdict(self.item) | {
            "shots": len(self.shots),
            "answers": self.texts,
            "right": self.rights,
            "log_probs": self.log_probs,
            "n_cut": self.n_cut,
        }


def answer_freely(
    model: GPT,
    asking: Asking,
    items: Sequence[FreeItem],
    *,
    training: Sequence[Shot] = (),
    shots: int = 0,
    seed: int = 0,
    max_new_tokens: int = 32,
    samples: int = 1,
    temperature: float = 0.0,
    beams: int = 1,
    at_once: int = AT_ONCE,
) -> list[FreeAnswer]:
    """Let a model answer in its own words.

    Parameters
    ----------
    model : GPT
    asking : Asking
    items : sequence of FreeItem
    training, shots, seed
        As in `answer_choices`; the seed is that of sampling, too.
    max_new_tokens : int
        The most tokens of an answer.
    samples : int
        Answers to each prompt.
    temperature : float
        0: the likeliest token, always.
    beams : int
        More than 1: search with so many.
    at_once : int
        The most prompts in one pass, by which its memory grows.

    Returns
    -------
    list of FreeAnswer

    Raises
    ------
    ValueError
        If a prompt does not fit, by its line; or options have no meaning together.
    """
    if samples < 1 or beams < 1:
        refuse("samples, beams", "at least 1", f"{samples}, {beams}")
    if beams > 1 and (samples > 1 or temperature):
        refuse("beams", "1 where answers are sampled", str(beams), "a search draws nothing")
    if samples > 1 and not temperature:
        cause = "without one all samples are the same"
        refuse("temperature", "above 0 with several samples", "0", cause)
    chosen = [
        _fitted(model, asking, item, drawn(training, shots, item.prompt, seed, row), max_new_tokens)
        for row, item in enumerate(items)
    ]
    stops = asking.stops()
    contexts = [asking.context(kept, item.prompt) for item, kept in zip(items, chosen, strict=True)]
    said: list[list[tuple[list[int], float]]] = [[] for _ in items]
    if beams > 1:
        for i, context in enumerate(contexts):
            said[i].append(
                beam_search(model, context, beams, max_new_tokens=max_new_tokens, stops=stops)
            )
    else:
        # Each sample has a row of its own, by which it draws.
        rows = [(i, i * samples + n) for i in range(len(items)) for n in range(samples)]
        rows.sort(key=lambda row: len(contexts[row[0]]))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            generated = generate(
                model, [contexts[i] for i, _ in part], max_new_tokens=max_new_tokens,
                temperature=temperature, stop_tokens=stops, seed=seed, rows=[r for _, r in part],
            )  # fmt: skip
            sums = generated.log_probs.sum(1).tolist()
            for (i, _), ids, log_prob in zip(part, generated.token_lists(), sums, strict=True):
                said[i].append((ids, log_prob))
    return [
        FreeAnswer(
            item,
            kept,
            [asking.text(ids) for ids, _ in answers],
            [log_prob for _, log_prob in answers],
            sum(ids[-1] not in stops for ids, _ in answers),
        )
        for item, kept, answers in zip(items, chosen, said, strict=True)
    ]


def _fitted(
    model: GPT, asking: Asking, item: FreeItem, shots: Sequence[Shot], max_new_tokens: int
) -> tuple[Shot, ...]:
    def needed(kept: Sequence[Shot]) -> int:
        return len(asking.context(kept, item.prompt)) + max_new_tokens

    try:
        return fitted(shots, needed, model.config.n_ctx)
    except ValueError as error:
        raise at_line(item.line, error) from None


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the chance that one of `k` samples is right, of `n` of which `c` are.

    Parameters
    ----------
    n, c, k : int
        Samples, right ones, and how many may be tried.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `c` or `k` is not within `n`.
    """
    if not 0 <= c <= n:
        refuse("c", f"0 to the {n} samples", str(c))
    if not 1 <= k <= n:
        refuse("k", f"1 to the {n} samples", str(k), "more tries than there are samples")
    if n - c < k:
        return 1.0
    # C(n − c, k) / C(n, k), factor by factor: neither number need be represented.
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def most_confident(answers: Sequence[FreeAnswer], share: float) -> list[bool]:
    """Say of the answers of the highest log P whether they are right.

    Parameters
    ----------
    answers : sequence of FreeAnswer
        Of each the first answer counts.
    share : float
        Of all, above 0; one answer at least is taken.

    Returns
    -------
    list of bool
        The surest first; of equally sure ones the first in the file.
    """
    if not 0 < share <= 1:
        refuse("share", "above 0, at most 1", repr(share))
    order = sorted(range(len(answers)), key=lambda i: -answers[i].log_probs[0])
    return [answers[i].rights[0] for i in order[: max(1, round(share * len(answers)))]]
