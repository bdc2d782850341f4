"""The reward model's ranking loss: InstructGPT's, over all pairs of K ranked completions.

For each prompt, people ranked K completions. With r the reward model's scores and w ≻ l a pair in
which w was ranked better (InstructGPT, arXiv 2203.02155, equation 1):

    L = mean over prompts of 1/n · Σ over pairs w ≻ l of [−log σ(r_w − r_l − m) + c·(r_w + r_l)²]

n is the prompt's own number of pairs, C(K, 2) less its ties, so every prompt weighs the same
however many completions it has. m is an optional margin. c is an optional centring coefficient:
the ranking alone leaves the scores' origin free, and c > 0 pulls it to 0. Centring stands inside
the same per-prompt mean over pairs.

−log σ(z) is computed as softplus(−z) = max(−z, 0) + log(1 + exp(−|z|)), which cannot overflow.

The file climbs: `reward_loss_by_pairs` is the definition, one pair after the other; `reward_loss`
lays all pairs of a prompt out as a K × K tile, as the kernel does, in which element (i, j) is the
pair as completion i sees it.

Edge semantics, the same in both twins. A completion with a negative rank is not there: its score
is never read, whatever it holds, and its gradient is exactly 0. Equal ranks are ties, and make no
pair. A prompt without a pair does not count in the mean; if no prompt has one, the loss, every
statistic and every gradient are 0. A score that is there and infinite or NaN is refused.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..checks import (
    expect_finite,
    expect_floats,
    expect_integers,
    expect_shape,
    refuse,
)
from ..operation import at_least_float32, value_of

# The kernel holds one prompt's pairs in one program's registers.
MAX_COMPLETIONS = 64
N_BINS = 10
BIN_WIDTH = 0.5 / N_BINS
# A pair is predicted with probability σ(|r_w − r_l|) ≥ ½. Bins of equal width over [½, 1] are
# bins of |r_w − r_l| between these edges (9 of them): no exponential, and no rounding of one.
BIN_EDGES = tuple(math.log((0.5 + k * BIN_WIDTH) / (0.5 - k * BIN_WIDTH)) for k in range(1, N_BINS))

Saved = tuple[np.ndarray, np.ndarray, np.ndarray, float, float]


class RewardLoss(NamedTuple):
    """What `reward_loss` returns, in both twins: the loss, and statistics without a gradient.

    Attributes
    ----------
    loss : scalar
        The loss, in nats for each pair (and c·score²).
    accuracy : scalar
        Share of all pairs with r_w > r_l; equal scores are wrong. 0 if there is no pair.
    n_pairs : scalar
        Number of pairs, as a float.
    mean_margin : scalar
        Mean of r_w − r_l over all pairs; 0 if there is none.
    bin_pairs, bin_right : [10]
        Number of pairs, and of those with r_w > r_l, whose probability σ(|r_w − r_l|) lies in each
        of ten bins of width 0.05 over [0.5, 1]; as floats. For `expected_calibration_error`. They
        add up over batches.
    """

    loss: Any
    accuracy: Any
    n_pairs: Any
    mean_margin: Any
    bin_pairs: Any
    bin_right: Any


@at_least_float32
def reward_loss_by_pairs(
    scores: np.ndarray, ranks: np.ndarray, *, margin: float = 0.0, centring: float = 0.0
) -> float:
    """Compute the loss alone from its definition, pair by pair."""
    check_reward_loss(scores, ranks, margin, centring)
    expect_finite("scores", scores, ranks >= 0)
    of_prompts = []
    for r, rank in zip(scores, ranks, strict=True):
        of_pairs = [
            np.logaddexp(0, -(r[w] - r[l] - margin)) + centring * (r[w] + r[l]) ** 2
            for w in range(len(r))
            for l in range(len(r))  # noqa: E741 (w ≻ l, as in the paper)
            if 0 <= rank[w] < rank[l]
        ]
        if of_pairs:
            of_prompts.append(sum(of_pairs) / len(of_pairs))
    return float(sum(of_prompts) / len(of_prompts)) if of_prompts else 0.0


@at_least_float32
def reward_loss_forward(
    scores: np.ndarray, ranks: np.ndarray, *, margin: float = 0.0, centring: float = 0.0
) -> tuple[RewardLoss, Saved]:
    """Compute the ranking loss of a batch of prompts, and its statistics.

    Parameters
    ----------
    scores : numpy.ndarray [prompt, completion]
        The reward model's scores; at most 64 completions.
    ranks : numpy.ndarray of int [prompt, completion]
        Place of each completion in its prompt's ranking: smaller is better, equal is a tie, and
        negative means that there is no completion.
    margin : float
        m: the better one must be ahead by more than this; finite, at least 0.
    centring : float
        c: weight of (r_w + r_l)²; finite, at least 0. 0.01 is typical.

    Returns
    -------
    results : RewardLoss
        The loss, and accuracy, n_pairs, mean_margin, bin_pairs, bin_right.
    saved : tuple
        For `reward_loss_backward`: the scores (0 where there is no completion), which pairs count,
        each prompt's weight 1 / (n · number of prompts that count), margin and centring.

    Raises
    ------
    ValueError
        If a shape, a dtype, `margin` or `centring` is wrong, or a score that is there not finite.
    """
    check_reward_loss(scores, ranks, margin, centring)
    expect_finite("scores", scores, ranks >= 0)
    margin, centring = float(margin), float(centring)  # NumPy scalars would promote float32
    dtype = scores.dtype
    present = ranks >= 0
    scores = np.where(present, scores, 0).astype(dtype, copy=False)
    # wins[p, i, j]: completion i of prompt p is ranked better than completion j.
    wins = present[:, :, None] & present[:, None, :] & (ranks[:, :, None] < ranks[:, None, :])
    ahead = scores[:, :, None] - scores[:, None, :]  # r_i − r_j

    n_per_prompt = wins.sum(axis=(1, 2))  # [prompt]
    n_prompts = np.count_nonzero(n_per_prompt)
    weight = (1 / (np.maximum(n_per_prompt, 1) * max(n_prompts, 1))).astype(dtype)
    of_pairs = softplus(margin - ahead)
    if centring:
        of_pairs = of_pairs + centring * (scores[:, :, None] + scores[:, None, :]) ** 2
    loss = (np.where(wins, of_pairs, 0).sum(axis=(1, 2)) * weight).sum()

    right = wins & (scores[:, :, None] > scores[:, None, :])
    bins = np.searchsorted(np.array(BIN_EDGES, dtype), np.abs(ahead), side="right")
    n_pairs = n_per_prompt.sum()
    results = RewardLoss(
        loss,
        dtype.type(right.sum() / max(n_pairs, 1)),
        dtype.type(n_pairs),
        np.where(wins, ahead, 0).sum() / dtype.type(max(n_pairs, 1)),
        np.bincount(bins[wins], minlength=N_BINS).astype(dtype),
        np.bincount(bins[right], minlength=N_BINS).astype(dtype),
    )
    return results, (scores, wins, weight, margin, centring)


reward_loss = value_of(reward_loss_forward)


@at_least_float32
def reward_loss_backward(saved: Saved, d_loss: Any) -> np.ndarray:
    """Carry the gradient from the loss back to the scores.

    A pair pulls its winner up and its loser down with the same force, σ(−(r_w − r_l − m)): the
    probability that the model still gives to the wrong order. So a prompt's gradients sum to 0,
    unless centring adds 2c·(r_w + r_l) to both.

    Parameters
    ----------
    saved : tuple
        From `reward_loss_forward`.
    d_loss : float or numpy.ndarray []
        Gradient with respect to the loss.

    Returns
    -------
    numpy.ndarray [prompt, completion]
        Gradient with respect to `scores`; 0 where there is no completion.

    Raises
    ------
    ValueError
        If `d_loss` is not a scalar.
    """
    scores, wins, weight, margin, centring = saved
    expect_shape("d_loss", np.asarray(d_loss), ())
    ahead = scores[:, :, None] - scores[:, None, :]
    pull = np.where(wins, sigmoid(margin - ahead), 0)  # [prompt, winner, loser]
    d_scores = pull.sum(axis=1) - pull.sum(axis=2)
    if centring:
        either = wins | wins.swapaxes(1, 2)
        sums = np.where(either, scores[:, :, None] + scores[:, None, :], 0)
        d_scores = d_scores + 2 * centring * sums.sum(axis=2)
    return (d_scores * weight[:, None] * d_loss).astype(scores.dtype, copy=False)


def expected_calibration_error(bin_pairs: np.ndarray, bin_right: np.ndarray) -> float:
    """Say how far the predicted probabilities are from the shares that came true.

    ECE = Σ over bins of (pairs in the bin / all pairs) · |share right − the bin's middle|. Counts
    alone do not say where in a bin its pairs lay, so the middle stands for all of them: the result
    is within 0.025, half a bin, of what each pair's own probability would give.

    Parameters
    ----------
    bin_pairs, bin_right : numpy.ndarray [10]
        From `reward_loss`; sums over several batches are as good.

    Returns
    -------
    float
        Between 0 and 1; 0 if there is no pair.

    Raises
    ------
    ValueError
        If there are not ten bins, or more pairs are right than there are.
    """
    pairs, right = (np.asarray(counts, dtype=np.float64) for counts in (bin_pairs, bin_right))
    expect_shape("bin_pairs", pairs, (N_BINS,))
    expect_shape("bin_right", right, (N_BINS,))
    if not ((right >= 0) & (right <= pairs)).all():
        refuse(
            "bin_right", "0 to bin_pairs in each bin", f"{right} of {pairs}", "counts of two runs"
        )
    middles = 0.5 + (np.arange(N_BINS) + 0.5) * BIN_WIDTH
    # pairs · |right / pairs − middle|, where an empty bin would divide by 0
    return float(np.abs(right - pairs * middles).sum() / max(pairs.sum(), 1))


def softplus(x: np.ndarray) -> np.ndarray:
    """Compute log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + exp(−x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def check_reward_loss(scores: Any, ranks: Any, margin: float, centring: float) -> None:
    """Refuse arguments that `reward_loss` has no meaning for."""
    if len(scores.shape) != 2:
        refuse("scores", "2 dimensions [prompt, completion]", f"shape {tuple(scores.shape)}")
    expect_floats(scores=scores)
    if scores.shape[1] > MAX_COMPLETIONS:
        refuse(
            "scores",
            f"at most {MAX_COMPLETIONS} completions a prompt",
            f"shape {tuple(scores.shape)}",
            "[completion, prompt] instead of [prompt, completion]",
        )
    expect_shape("ranks", ranks, tuple(scores.shape), "[prompt, completion], like scores")
    expect_integers(ranks=ranks)
    for name, value in (("margin", margin), ("centring", centring)):
        if not (math.isfinite(value) and value >= 0):
            refuse(name, "a finite number, at least 0", repr(value))
