"""Context distillation: a model learns to answer as it would with a prompt before the conversation.

Askell et al. (arXiv 2112.00861) and Bai et al. (arXiv 2204.05862, A.1): the teacher is the model
with the prompt, the student the same model without. Of the teacher's next-token distribution t the
k most likely tokens are stored (they take 50), and one number for all others together. The
student's s is held to these k + 1 cells:

    KL = Σ over top  t_j·(log t_j − log s_j)  +  t_rest·(log t_rest − log s_rest)

The bucket matters: without it nothing says how much the student may give to all other tokens, and
the sum is no divergence. Within the bucket the student keeps its own proportions, as the gradient
with respect to the logits says:

    ∂KL/∂z_j = s_j − t_j   on top,          s_j·(1 − t_rest/s_rest)   in the rest

Edge semantics, the same in both twins. A teacher with nothing left for the rest gives the bucket a
term of 0. A cell to which the student gives less than `FLOOR` counts as `FLOOR`, and gets no
gradient: a cell of probability 0 has no logit that could be moved.
"""

import math
from typing import Any

import numpy as np

from ..checks import all_below, expect_floats, expect_integers, expect_shape, refuse
from ..operation import at_least_float32, value_of

FLOOR = 1e-30
LOG_FLOOR = math.log(FLOOR)
# A stored distribution may exceed 1 by rounding, but not by more.
EXCESS = 1e-3

Saved = tuple[np.ndarray, np.ndarray, np.ndarray]


@at_least_float32
def top_log_probs(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is stored of a teacher: its k most likely tokens and their log-probabilities.

    Parameters
    ----------
    logits : numpy.ndarray [..., vocab]
        The teacher's.
    k : int
        From 1 to the vocabulary's size.

    Returns
    -------
    ids : numpy.ndarray of int [..., k]
        The likeliest first, of equal ones the lowest.
    log_probs : numpy.ndarray [..., k]
    """
    check_top(logits, k)
    ids = np.argsort(-logits, axis=-1, kind="stable")[..., :k]
    chosen = np.take_along_axis(logits, ids, axis=-1)
    return ids, chosen - _log_sum_exp(logits)[..., None]


@at_least_float32
def context_distillation_forward(
    logits: np.ndarray, top_ids: np.ndarray, top_log_probs: np.ndarray
) -> tuple[np.ndarray, Saved]:
    """Compute KL(teacher‖student) of each row over the top cells and the bucket.

    Parameters
    ----------
    logits : numpy.ndarray [..., vocab]
        The student's.
    top_ids : numpy.ndarray of int [..., k]
        The teacher's likeliest tokens, each once.
    top_log_probs : numpy.ndarray [..., k]
        Their log-probabilities under the teacher.

    Returns
    -------
    kl : numpy.ndarray [...]
        In nats.
    saved : tuple
        For `context_distillation_backward`.

    Raises
    ------
    ValueError
        If a shape, a dtype or an id is wrong, or the probabilities sum to more than 1.
    """
    check_context_distillation(logits, top_ids, top_log_probs)
    dtype = logits.dtype
    teacher = np.exp(top_log_probs)  # [..., k]
    rest = np.maximum(1 - teacher.sum(axis=-1), 0)  # [...]
    cells = np.concatenate([teacher, rest[..., None]], axis=-1)  # [..., k + 1]

    log_z = _log_sum_exp(logits)[..., None]
    others = logits.copy()
    np.put_along_axis(others, top_ids, -np.inf, axis=-1)
    log_student = (
        np.concatenate(
            [np.take_along_axis(logits, top_ids, axis=-1), _log_sum_exp(others)[..., None]], axis=-1
        )
        - log_z
    )  # [..., k + 1]
    live = log_student >= LOG_FLOOR
    bounded = np.where(live, log_student, LOG_FLOOR)

    log_teacher = np.log(cells, out=np.zeros_like(cells), where=cells > 0)
    kl = (cells * (log_teacher - bounded)).sum(axis=-1)  # a cell of 0 adds 0

    # −t·log s of a live cell has the gradient t·(s_v − s_v/s_cell inside the cell).
    pull = np.where(live, cells, 0)
    student = np.exp(logits - log_z)
    inside = np.broadcast_to(
        (pull[..., -1] * np.exp(-bounded[..., -1]))[..., None], logits.shape
    ).copy()  # t/s of the cell that each token lies in
    np.put_along_axis(inside, top_ids, pull[..., :-1] * np.exp(-bounded[..., :-1]), axis=-1)
    return kl.astype(dtype, copy=False), (student, pull.sum(axis=-1), inside)


context_distillation = value_of(context_distillation_forward)


@at_least_float32
def context_distillation_backward(saved: Saved, d_kl: np.ndarray) -> np.ndarray:
    """Carry the gradient from the divergence back to the student's logits.

    Parameters
    ----------
    saved : tuple
        From `context_distillation_forward`.
    d_kl : numpy.ndarray [...]
        Gradient with respect to the result.

    Returns
    -------
    numpy.ndarray [..., vocab]
    """
    student, total, inside = saved
    expect_shape("d_kl", d_kl, student.shape[:-1])
    return (student * (total[..., None] - inside) * d_kl[..., None]).astype(student.dtype)


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    """Compute log Σ e^x over the last axis; −inf where there is nothing."""
    top = x.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - top).sum(axis=-1)) + top[..., 0]


def check_top(logits: Any, k: int) -> None:
    """Refuse arguments that `top_log_probs` has no meaning for, in both twins."""
    expect_floats(logits=logits)
    vocab = logits.shape[-1]
    if not 1 <= k <= vocab:
        refuse("k", f"from 1 to the vocabulary's {vocab}", f"{k}")


def check_context_distillation(logits: Any, top_ids: Any, top_log_probs: Any) -> None:
    """Refuse arguments that `context_distillation` has no meaning for, in both twins."""
    expect_floats(logits=logits, top_log_probs=top_log_probs)
    expect_integers(top_ids=top_ids)
    k, vocab = top_ids.shape[-1], logits.shape[-1]
    expect_shape("top_ids", top_ids, (*logits.shape[:-1], k), "rows of another batch")
    expect_shape("top_log_probs", top_log_probs, tuple(top_ids.shape))
    check_top(logits, k)
    if not all_below(top_ids, vocab):
        refuse("top_ids", f"ids from 0 to {vocab - 1}", "others", "another vocabulary's")
    # By sorting, the same id twice lies side by side.
    ordered = np.sort(np.asarray(top_ids), axis=-1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        refuse("top_ids", "each id once in a row", "one that occurs twice")
    totals = np.exp(np.asarray(top_log_probs, np.float64)).sum(axis=-1)
    if totals.size and not totals.max() <= 1 + EXCESS:
        refuse(
            "top_log_probs", "log-probabilities, which sum to 1 at most",
            f"a row that sums to {totals.max():.4g}", "logits, or several temperatures mixed",
        )  # fmt: skip
