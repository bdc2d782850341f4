"""GPT-1's fine-tuning: the task's loss, and the language model's on the same inputs beside it.

    L = L_task + λ·L_LM                                      (Radford et al. 2018, eq. 5)

    L_task = mean over examples of −log softmax(logits)[label]
    L_LM   = mean over sequences of (Σ over its counted tokens of −log p(token)) / (their number)

An example may be several sequences: both orders of a pair, or each answer of a multiple choice.
L_LM is a mean of means, as in the released code: every sequence weighs the same, whatever its
length. (A mean over all tokens would let the long ones count for more: of losses (1, 2, 3) and (4)
it is 2.5, and this is 3.)

Edge semantics: a sequence without a counted token does not count in the mean; without any, L_LM is
0. With λ = 0 the loss is the task's, whatever the token losses hold.

Source: Radford et al. 2018, section 3.2, where λ = 0.5; openai/finetune-transformer-lm.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..checks import all_below, expect_floats, expect_integers, expect_shape, refuse
from ..masking import expect_mask
from ..operation import at_least_float32, value_of
from .token_scores import log_softmax

LM_WEIGHT = 0.5


class FinetuningLoss(NamedTuple):
    """What `finetuning_loss` returns: the sum, and its two parts, in nats.

    Attributes
    ----------
    loss, task, language_model : scalar
        L, L_task and L_LM.
    """

    loss: Any
    task: Any
    language_model: Any


Saved = tuple[np.ndarray, np.ndarray, float]


@at_least_float32
def finetuning_loss_forward(
    logits: np.ndarray,
    labels: np.ndarray,
    token_losses: np.ndarray,
    mask: np.ndarray,
    *,
    lm_weight: float = LM_WEIGHT,
) -> tuple[FinetuningLoss, Saved]:
    """Compute the loss of a batch of labelled examples.

    Parameters
    ----------
    logits : numpy.ndarray [example, class]
        From the end token's state.
    labels : numpy.ndarray of int [example]
        The right class of each.
    token_losses : numpy.ndarray [sequence, time]
        −log p of each token of the examples' sequences, delimiters and end included.
    mask : numpy.ndarray of bool [sequence, time]
        True at the tokens that count: all but padding.
    lm_weight : float
        λ, finite, at least 0.

    Returns
    -------
    results : FinetuningLoss
        loss, task, language_model.
    saved : tuple
        For `finetuning_loss_backward`.

    Raises
    ------
    ValueError
        If a shape, a dtype, a label or `lm_weight` is wrong.
    """
    check_finetuning_loss(logits, labels, token_losses, mask, lm_weight)
    lm_weight = float(lm_weight)  # a NumPy scalar would promote float32
    n_examples, n_classes = logits.shape
    log_p = log_softmax(logits)
    is_label = np.arange(n_classes) == labels[:, None]  # [example, class]
    task = -log_p[is_label].mean()
    d_logits = (np.exp(log_p) - is_label) / n_examples

    counted = mask.sum(axis=1)  # [sequence]
    n_sequences = max(np.count_nonzero(counted), 1)
    weight = mask / (np.maximum(counted, 1)[:, None] * n_sequences)  # [sequence, time]
    weight = weight.astype(token_losses.dtype)
    language_model = (np.where(mask, token_losses, 0) * weight).sum()
    loss = task + lm_weight * language_model if lm_weight else task
    results = FinetuningLoss(loss, task, language_model)
    return results, (d_logits, weight, lm_weight)


finetuning_loss = value_of(finetuning_loss_forward)


@at_least_float32
def finetuning_loss_backward(saved: Saved, d_loss: Any) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradient from the loss back to the logits and to each token's loss.

    Parameters
    ----------
    saved : tuple
        From `finetuning_loss_forward`.
    d_loss : float or numpy.ndarray []
        Gradient with respect to the loss.

    Returns
    -------
    d_logits : numpy.ndarray [example, class]
        (softmax − 1[label]) / examples.
    d_token_losses : numpy.ndarray [sequence, time]
        λ / (tokens of the sequence · sequences); 0 where nothing counts.
    """
    d_logits, weight, lm_weight = saved
    expect_shape("d_loss", np.asarray(d_loss), ())
    return d_logits * d_loss, weight * lm_weight * d_loss


def check_finetuning_loss(
    logits: Any, labels: Any, token_losses: Any, mask: Any, lm_weight: float
) -> None:
    """Refuse arguments that `finetuning_loss` has no meaning for."""
    if len(logits.shape) != 2 or 0 in logits.shape:
        refuse("logits", "[example, class], one of each at least", f"shape {tuple(logits.shape)}")
    expect_floats(logits=logits, token_losses=token_losses)
    expect_shape("labels", labels, (logits.shape[0],), "one label for each example")
    expect_integers(labels=labels)
    if not all_below(labels, logits.shape[1]):
        refuse("labels", f"0 to {logits.shape[1] - 1}", "others", "classes counted from 1")
    if len(token_losses.shape) != 2:
        refuse("token_losses", "[sequence, time]", f"shape {tuple(token_losses.shape)}")
    expect_mask("mask", mask, tuple(token_losses.shape), "token_losses")
    if not (math.isfinite(lm_weight) and lm_weight >= 0):
        refuse("lm_weight", "a finite number, at least 0", repr(lm_weight))
