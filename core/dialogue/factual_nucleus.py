"""Factual nucleus sampling: a sentence begins freely and ends carefully.

Nucleus sampling keeps the likeliest tokens that have a share p of the probability. Late in a
sentence, where names and numbers stand, randomness costs truth. So p decays with t, the number of
tokens since the last full stop, question or exclamation mark, down to a floor ω:

    p_t = max(ω, p₀·λ^max(0, t − 1))           p₀ = λ = 0.9, ω = 0.3

A token is dropped where what is likelier than it has a share of p or more: cumulative − own ≥ p.
The first is always kept; of equal ones the one with the smaller id stands first.

Source: Lee et al. 2022, arXiv 2206.04624; ParlAI, torch_generator_agent.py.
"""

import numpy as np

from ..checks import refuse

P, DECAY, FLOOR = 0.9, 0.9, 0.3


def nucleus_share(
    since: np.ndarray, p: float = P, decay: float = DECAY, floor: float = FLOOR
) -> np.ndarray:
    """Return p_t.

    Parameters
    ----------
    since : numpy.ndarray of int [row]
        t, tokens since the last end of a sentence.
    p, decay, floor : float
        p₀, λ, ω: shares, the floor not above p₀.

    Returns
    -------
    numpy.ndarray [row]
    """
    for name, value in (("p", p), ("decay", decay), ("floor", floor)):
        if not 0 < value <= 1:
            refuse(name, "a share above 0, at most 1", repr(value))
    if floor > p:
        refuse("floor", f"at most p = {p}", repr(floor))
    return np.maximum(floor, p * decay ** np.maximum(0, np.asarray(since) - 1))


def nucleus(probabilities: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Say which tokens are kept.

    Parameters
    ----------
    probabilities : numpy.ndarray [row, vocab]
    share : numpy.ndarray [row]

    Returns
    -------
    numpy.ndarray of bool [row, vocab]
    """
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, -1)
    likelier = ordered.cumsum(-1) - ordered
    kept = np.zeros(probabilities.shape, bool)
    np.put_along_axis(kept, order, likelier < np.asarray(share)[..., None], -1)
    return kept


def sentence_ends(text: str) -> bool:
    """Say whether a token's text ends a sentence."""
    return text.rstrip().endswith((".", "?", "!"))
