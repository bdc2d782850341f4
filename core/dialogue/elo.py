"""Elo ratings: what comparisons of several policies say of each, by maximum likelihood.

Policy i wins against j with the probability σ(s_i − s_j), with scores s in nats (Bradley and Terry
1952). Chess counts the same in Elo:

    P(i beats j) = 1 / (1 + 10^(−(E_i − E_j)/400)),      E = 400/ln 10 · s = 173.72·s

Bai et al. (arXiv 2204.05862, section 2.4) rate their policies so, and turn a preference model's
scores, which its loss makes nats, into Elo by the same factor. They print the exponent without its
minus, and define the difference the other way round.

With w_ij the times that i was preferred to j (their appendix B.5 fits this),

    ℓ(s) = Σ_ij w_ij·log σ(s_i − s_j)

is concave, and stays as it is if all scores move together: so one player is held at 0. Newton's
method climbs to the top, and the curvature there, n_ij·p·(1 − p) for each pair, gives the standard
errors.

**Where there is no top.** Who wins every game could always be a little better. A top exists if and
only if from each player a chain of wins leads to each other one (Ford 1957). Without such chains
`fit_ratings` refuses; with `add_half` it adds half a win to either side of every pair that has
met, which draws ratings together, and says so in its result. Players who have not met, not even
through others, cannot be compared, and stay refused.

A vote for neither is not in the counts, as in Bai et al.; who wants it to be half a win each may
write it there, since counts need not be whole.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checks import expect_finite, refuse
from ..rlhf.reward_loss import sigmoid, softplus

ELO_PER_NAT = 400 / math.log(10)
MOST_STEPS = 100
SMALL_STEP = 1e-12


class Ratings(NamedTuple):
    """What `fit_ratings` returns.

    Attributes
    ----------
    nats, nats_errors : numpy.ndarray [player]
        Scores, and their standard errors; both are 0 for the player held at 0.
    log_likelihood : float
        ℓ at the top, of the counts with what was added to them.
    halves_added : bool
        Whether every pair that met was given half a win on either side.
    """

    nats: np.ndarray
    nats_errors: np.ndarray
    log_likelihood: float
    halves_added: bool

    @property
    def elo(self) -> np.ndarray:
        """The scores in Elo, [player]."""
        return ELO_PER_NAT * self.nats

    @property
    def elo_errors(self) -> np.ndarray:
        """Their standard errors in Elo, [player]."""
        return ELO_PER_NAT * self.nats_errors


def win_probability(elo_difference: float) -> float:
    """Return how often the first of two players wins, from its Elo minus the other's."""
    return float(sigmoid(np.asarray(elo_difference / ELO_PER_NAT)))


def elo_of_share(share: float, games: int = 0) -> tuple[float, float]:
    """Turn a share of won games into a difference of Elo.

    Parameters
    ----------
    share : float
        Of the games that the first player won, between 0 and 1.
    games : int
        How many there were, for the standard error.

    Returns
    -------
    difference, error : float
        In Elo; the error is NaN without games.

    Raises
    ------
    ValueError
        If the share is 0 or 1, which no finite difference explains, or not a share.
    """
    if not 0 < share < 1:
        cause = "a player who won every game: fit_ratings with add_half"
        refuse("share", "a number above 0 and below 1", repr(share), cause)
    spread = math.sqrt(games * share * (1 - share))
    error = ELO_PER_NAT / spread if games else math.nan
    return ELO_PER_NAT * math.log(share / (1 - share)), error


def fit_ratings(wins: np.ndarray, *, fixed: int = -1, add_half: bool = False) -> Ratings:
    """Rate players by maximum likelihood.

    Parameters
    ----------
    wins : numpy.ndarray [player, player]
        Element (i, j): how often i won against j. The diagonal is 0.
    fixed : int
        The player whose score is 0; by default the last.
    add_half : bool
        Add half a win to either side of every pair that has met.

    Returns
    -------
    Ratings

    Raises
    ------
    ValueError
        If the counts are not such, if some players have not met, not even through others, or if a
        chain of wins is missing somewhere: then no finite ratings are the best.
    """
    counts = _checked_wins(wins)
    met = (counts + counts.T) > 0
    if add_half:
        counts = counts + 0.5 * met
    _expect_a_top(counts, met)
    games = counts + counts.T  # [player, player]
    free = np.delete(np.arange(len(counts)), fixed)

    scores = np.zeros(len(counts))
    # From 0, where ℓ curves most, Newton's steps are rather too short than too long.
    for _ in range(MOST_STEPS):
        gradient, curvature = _slope(counts, games, scores)
        step = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        scores[free] += step
        if np.abs(step).max() < SMALL_STEP:
            break
    _, curvature = _slope(counts, games, scores)
    errors = np.zeros(len(counts))
    errors[free] = np.sqrt(np.diag(np.linalg.inv(curvature[np.ix_(free, free)])))
    log_likelihood = float(-(counts * softplus(scores[None, :] - scores[:, None])).sum())
    return Ratings(scores, errors, log_likelihood, add_half)


def _slope(
    counts: np.ndarray, games: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of ℓ, [player], and minus its second derivatives, [player, player]."""
    p = sigmoid(scores[:, None] - scores[None, :])
    weight = games * p * (1 - p)
    return (counts - games * p).sum(axis=1), np.diag(weight.sum(axis=1)) - weight


def _checked_wins(wins: np.ndarray) -> np.ndarray:
    counts = np.asarray(wins, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 2:
        refuse("wins", "[player, player], of two players at least", f"shape {counts.shape}")
    expect_finite("wins", counts)
    if (counts < 0).any() or np.diag(counts).any():
        expected = "counts from 0 on, and 0 on the diagonal"
        refuse("wins", expected, f"{counts.tolist()}", "differences instead of counts")
    return counts


def _expect_a_top(counts: np.ndarray, met: np.ndarray) -> None:
    """Refuse counts of which no finite ratings are the likeliest."""
    apart = np.argwhere(~_reached(met))
    if len(apart):
        i, j = apart[0]
        cause = "two tournaments in one table: rate each by itself, or let a player of each meet"
        refuse("wins", "players connected by games", f"no games between {i} and {j}", cause)
    missing = np.argwhere(~_reached(counts > 0))
    if len(missing):
        i, j = missing[0]
        got = f"none from player {i} to player {j}"
        cause = "a player who won or lost every game: play more, or say add_half"
        refuse("wins", "a chain of wins from each player to each other", got, cause)


def _reached(arrows: np.ndarray) -> np.ndarray:
    """Say who is reached from whom along arrows, bool [player, player]; everyone from itself."""
    reached = arrows | np.eye(len(arrows), dtype=bool)
    for _ in range(len(arrows).bit_length()):
        reached = reached @ reached  # twice as many arrows as before
    return reached
