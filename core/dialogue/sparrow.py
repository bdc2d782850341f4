"""Sparrow's arithmetic: what people prefer and which rules an answer keeps, as one number.

Two models judge an answer y. A preference model gives R(y), as InstructGPT's reward model does. One
rule model reads the dialogue and the text of a rule and gives p_i(y) = P(rule i is kept). They meet
in two places (Glaese et al. 2022, arXiv 2209.14375):

    rerank    S(y) = σ(R(y) − mean R) · (Π_i p_i(y))^(1/n)          pick the best of 8 candidates
    train     r(y) = (R(y) − μ)/s + w·mean_i p_i(y) − (b·T + c·[invalid])   the reward of RL

In the first, mean R is over the candidates, n is the number of rules that apply, and
σ(a − b) = e^a/(e^a + e^b). In the second, μ and s are running over all that RL has seen, T is the
answer's length and "invalid" an answer that is not of the form it must have. w is 1 as described;
it stands here since it decides how many broken rules a preference is worth: of n rules that apply
each weighs w/n, against a preference that is normalised to spread 1.

What is certain: the abstract names both models and the rules. The formulas are known here from
descriptions of the paper, which do not agree on the exponent 1/n. It decides how much a rule weighs
against a preference: without it every further rule weighs as much again. So both are here.

**What a reward with rules can and cannot do.** Let answers with v(y) = 1 break the rule. Under the
reward R − w·v and a KL term of weight β the best policy is π*(y) ∝ π_ref(y)·e^((R(y) − w·v(y))/β).
Write P and K for what π_ref·e^(R/β) weighs on breaking and on keeping answers. Then

    P(violated) = P·e^(−w/β) / (P·e^(−w/β) + K)

so w only shifts the log-odds of a violation, by −w/β, whatever the preference is. With w = 0 they
are those of preference alone: above the reference's if raters like what breaks the rule. All of it
is exact in `trade_off`.

Edge semantics, the same in PyTorch (rl/agents/sparrow). No rule: the product is 1 and the mean
is 0, so that the preference alone decides. One candidate: the first factor is ½ whatever R is.
P(kept) is taken to be at least `LEAST`, in logarithms: where every candidate breaks a rule for
certain, the others and the preference still decide. Of scores within `TOLERANCE` the first wins:
the same answer twice, scored in two places of a batch, differs in the last bits.
"""

from typing import Any, NamedTuple

import numpy as np

from ..checks import expect_floats, expect_ndim, expect_positive, expect_shape, refuse
from ..operation import at_least_float32, value_of
from ..rlhf.enumerable import kl_divergence, optimum
from ..rlhf.reward_loss import sigmoid, softplus

LEAST = 1e-12  # of P(kept)
TOLERANCE = 1e-6  # between scores, which are logarithms
LEAST_STD = 1e-6

# --- reranking -----------------------------------------------------------------------------------


@at_least_float32
def preference_factor(preferences: np.ndarray) -> np.ndarray:
    """Say how much each candidate is preferred to the others' mean: σ(R − mean R).

    Parameters
    ----------
    preferences : numpy.ndarray [candidate]
        R, of answers to one prompt; one at least.

    Returns
    -------
    numpy.ndarray [candidate]
        Between 0 and 1. A shift of all R changes nothing.
    """
    return sigmoid(preferences - preferences.mean())


@at_least_float32
def rerank_scores(preferences: np.ndarray, kept: np.ndarray, *, root: bool = True) -> np.ndarray:
    """Score candidates by preference and rules together.

    Parameters
    ----------
    preferences : numpy.ndarray [candidate]
        R, of answers to one prompt; one at least.
    kept : numpy.ndarray [candidate, rule]
        P(rule is kept), of the rules that apply to the prompt; perhaps of none.
    root : bool
        Whether the product is taken to the power 1/n.

    Returns
    -------
    numpy.ndarray [candidate]
        log S: from it `choose` takes the best.

    Raises
    ------
    ValueError
        If there is no candidate, a shape differs, or `kept` are no probabilities.
    """
    check_rerank(preferences, kept)
    log_kept = np.log(np.maximum(kept, kept.dtype.type(LEAST))).sum(1)  # [candidate]
    if root:
        log_kept = log_kept / max(kept.shape[1], 1)
    # log σ(x) = −softplus(−x)
    return log_kept - softplus(preferences.mean() - preferences)


def choose(scores: Any) -> int:
    """Return the candidate of the highest score, of equal ones the first.

    Parameters
    ----------
    scores : numpy.ndarray or torch.Tensor [candidate]
        Finite; one at least.

    Returns
    -------
    int
    """
    return int(((scores >= scores.max() - TOLERANCE) * 1).argmax())


# --- the reward of reinforcement learning --------------------------------------------------------


class Running(NamedTuple):
    """Mean and spread of all numbers so far, from three sums that can be kept in a checkpoint.

    Attributes
    ----------
    n : float
        How many.
    mean : float
    squares : float
        Σ (x − mean)².
    """

    n: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of what was seen, by n; at least `LEAST_STD`."""
        return max((self.squares / max(self.n, 1)) ** 0.5, LEAST_STD)

    def joined(self, other: "Running") -> "Running":
        """Return what both have seen (Chan, Golub and LeVeque 1983): no sum of squares cancels.

        Parameters
        ----------
        other : Running

        Returns
        -------
        Running
        """
        n = self.n + other.n
        if not n:
            return self
        away = other.mean - self.mean
        mean = self.mean + away * other.n / n
        return Running(n, mean, self.squares + other.squares + away**2 * self.n * other.n / n)


def running_of(values: np.ndarray) -> Running:
    """Return mean and spread of numbers [...]."""
    if not values.size:
        return Running()
    mean = float(values.mean(dtype=np.float64))
    return Running(float(values.size), mean, float(((values - mean) ** 2).sum(dtype=np.float64)))


@at_least_float32
def rl_reward(
    preferences: np.ndarray,
    kept: np.ndarray,
    applies: np.ndarray,
    running: Running,
    *,
    rule_weight: float = 1.0,
    lengths: np.ndarray | None = None,
    invalid: np.ndarray | None = None,
    length_weight: float = 0.0,
    format_weight: float = 0.0,
) -> np.ndarray:
    """Compute the reward of answers.

    Parameters
    ----------
    preferences : numpy.ndarray [answer]
        R.
    kept : numpy.ndarray [answer, rule]
        P(rule is kept).
    applies : numpy.ndarray of bool [answer, rule]
        Which rules apply to an answer's prompt: the mean is over these, and 0 if there is none.
    running : Running
        Of R, over all that RL has seen, these answers among it.
    rule_weight : float
        w.
    lengths : numpy.ndarray [answer], optional
        T, in tokens.
    invalid : numpy.ndarray of bool [answer], optional
        True for an answer without its end, say.
    length_weight, format_weight : float
        b and c; 0 for none.

    Returns
    -------
    numpy.ndarray [answer]

    Raises
    ------
    ValueError
        If a shape differs.
    """
    check_rl_reward(preferences, kept, applies)
    normalised = (preferences - preferences.dtype.type(running.mean)) / running.std
    of_rules = (kept * applies).sum(1) / np.maximum(applies.sum(1), 1)
    reward = normalised + rule_weight * of_rules
    if lengths is not None:
        reward = reward - length_weight * lengths
    if invalid is not None:
        reward = reward - format_weight * invalid
    return reward.astype(preferences.dtype, copy=False)


# --- the rule model's loss -----------------------------------------------------------------------


@at_least_float32
def rule_loss_forward(
    logits: np.ndarray, violated: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, Any]:
    """Compute the mean of −log P(label) over the labels that there are.

    Whoever probes for one rule says whether that one was broken, and nothing of the others: these
    are unknown, not kept.

    Parameters
    ----------
    logits : numpy.ndarray [dialogue, rule]
        z: P(violated) = σ(z).
    violated : numpy.ndarray of bool [dialogue, rule]
        Labels; read only where they are known.
    known : numpy.ndarray of bool [dialogue, rule]
        Where there is a label.

    Returns
    -------
    loss : numpy.ndarray []
        In nats; 0 if nothing is known.
    saved : tuple
        For `rule_loss_backward`.
    """
    expect_floats(logits=logits)
    for name, array in (("violated", violated), ("known", known)):
        expect_shape(name, array, logits.shape, "[dialogue, rule], like logits")
    n = max(int(known.sum()), 1)
    # −log σ(z) = softplus(−z), −log σ(−z) = softplus(z)
    losses = softplus(np.where(violated, -logits, logits))
    loss = np.where(known, losses, 0).sum() / n
    return loss.astype(logits.dtype), (logits, violated, known, n)


rule_loss = value_of(rule_loss_forward)


@at_least_float32
def rule_loss_backward(saved: Any, d_loss: Any) -> np.ndarray:
    """Carry the gradient back to the logits: (σ(z) − label)/n, exactly 0 where nothing is known."""
    logits, violated, known, n = saved
    d_logits = np.where(known, sigmoid(logits) - violated, 0) * (np.asarray(d_loss) / n)
    return d_logits.astype(logits.dtype, copy=False)


# --- the exact trade-off -------------------------------------------------------------------------


class TradeOff(NamedTuple):
    """Where RL ends: `policy` [answer]; violation, mean preference, and KL from the reference."""

    policy: np.ndarray
    violation: float
    preference: float
    kl: float


def trade_off(
    reference: np.ndarray,
    preferences: np.ndarray,
    violated: np.ndarray,
    weight: float,
    beta: float = 1.0,
) -> TradeOff:
    """Return the best policy under the reward R − w·v, and what it is worth.

    Parameters
    ----------
    reference : numpy.ndarray [answer]
        Probabilities that sum to 1.
    preferences : numpy.ndarray [answer]
        R.
    violated : numpy.ndarray of bool [answer]
        v.
    weight : float
        w, of the rule; 0: preference alone.
    beta : float
        Weight of the KL divergence; above 0.

    Returns
    -------
    TradeOff
    """
    expect_shape("violated", violated, preferences.shape, "[answer], like preferences")
    policy, _ = optimum(reference, preferences - weight * violated, beta)
    return TradeOff(
        policy,
        float(policy @ violated),
        float(policy @ preferences),
        kl_divergence(policy, reference),
    )


def weight_for(
    reference: np.ndarray,
    preferences: np.ndarray,
    violated: np.ndarray,
    violation: float,
    beta: float = 1.0,
) -> float:
    """Return the weight w at which the best policy breaks the rule as often as is asked for.

    Parameters
    ----------
    reference, preferences, violated, beta
        As in `trade_off`.
    violation : float
        The share wanted, between 0 and 1, exclusively.

    Returns
    -------
    float
        Negative if preference alone breaks the rule less often.
    """
    expect_positive("violation", violation)
    alone = trade_off(reference, preferences, violated, 0.0, beta).violation
    if violation >= 1 or not 0 < alone < 1:
        cause = "all answers break the rule, or none"
        refuse("violation", "a share that some weight leads to", f"{violation}", cause)
    log_odds = np.log(alone) - np.log1p(-alone)
    return float(beta * (log_odds - np.log(violation) + np.log1p(-violation)))


# --- checks, for both twins ----------------------------------------------------------------------


def check_rerank(preferences: Any, kept: Any) -> None:
    """Refuse arguments that `rerank_scores` has no meaning for."""
    expect_ndim("preferences", preferences, 1, "[candidate]")
    expect_shape("preferences", preferences, (len(preferences),), "answers to several prompts")
    expect_ndim("kept", kept, 2, "[candidate, rule]")
    expect_floats(preferences=preferences, kept=kept)
    if not len(preferences):
        refuse("preferences", "a candidate at least", "none", "all of them were filtered")
    cause = "[rule, candidate], or the rules of another prompt"
    expect_shape("kept", kept, (len(preferences), kept.shape[1]), cause)
    if not ((kept >= 0) & (kept <= 1)).all():
        cause = "logits, or log-probabilities"
        refuse("kept", "probabilities", f"from {kept.min():g} to {kept.max():g}", cause)


def check_rl_reward(preferences: Any, kept: Any, applies: Any) -> None:
    """Refuse arguments that `rl_reward` has no meaning for."""
    expect_floats(preferences=preferences, kept=kept)
    expect_ndim("kept", kept, 2, "[answer, rule]")
    expect_shape("kept", kept, (*preferences.shape, kept.shape[1]), "[answer, rule]")
    expect_shape("applies", applies, tuple(kept.shape), "[answer, rule], like kept")
