"""Side by side: the only way in which one time is compared with another here.

A machine has faster and slower minutes, so an absolute time says little, and a ratio of two times
that were taken one after the other says little more. Here those who are compared take turns,

    A B C  A B C  A B C ...

and each round gives one ratio of A to B, measured within seconds. What is reported is the median
over the rounds, with the 20th and 80th percentile as its noise.

Before the clock stands a gate: who does not compute the same is not timed at all.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Finding = dict[str, Any]
Seconds = dict[str, list[float]]
Mark = Callable[[str], None]  # told the name of the phase that begins

MINIMUM_ROUNDS = 3

FASTER, LONGER, NATS = "times as fast", "times its time", "nats"


class GateError(RuntimeError):
    """What was to be timed computes something else than its yardstick."""


class Skipped(RuntimeError):
    """Something that a measurement needs is not there; the message says what."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes
    ----------
    run : callable
        What is timed.
    result : callable
        What the gate compares: a dict of arrays by name, the same for every provider.
    """

    run: Callable[[], Any]
    result: Callable[[], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Claim:
    """What is to be shown of two providers.

    Attributes
    ----------
    ours, other : str
        Names of providers.
    bound : float or None
        The goal; None where there is none.
    unit : str
        FASTER: the other's time over ours is at least the bound; LONGER: ours over the other's is
        at most the bound.
    """

    ours: str
    other: str
    bound: float | None
    unit: str = FASTER

    @property
    def name(self) -> str:
        """Say who is compared with whom."""
        return f"{self.ours} against {self.other}"


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    budget_s: float = math.inf,
    warm_up: int = 1,
) -> Seconds:
    """Time calls in turns.

    Parameters
    ----------
    calls : dict of str to callable
    rounds : int
        Turns of each.
    budget_s : float
        No further round begins after so many seconds, once MINIMUM_ROUNDS are there.
    warm_up : int
        Rounds before them that do not count.

    Returns
    -------
    dict of str to list of float
        Seconds, one for each round.
    """
    seconds: Seconds = {name: [] for name in calls}
    began = time.perf_counter()
    for number in range(-warm_up, rounds):
        if number >= MINIMUM_ROUNDS and time.perf_counter() - began > budget_s:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if number >= 0:
                seconds[name].append(elapsed)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, p20 and p80."""
    p20, median, p80 = np.percentile(values, (20, 50, 80)).tolist()
    return {"median": median, "p20": p20, "p80": p80}


def judge(claim: Claim, seconds: Seconds, settings: Mapping[str, Any]) -> Finding:
    """Compare two providers' times round by round with the goal.

    Parameters
    ----------
    claim : Claim
    seconds : dict of str to list of float
        From `side_by_side`.
    settings : dict
        Kept beside the figures.

    Returns
    -------
    dict
        Ready for JSON, with the spread of both providers' `seconds`.
    """
    ours, other = np.array(seconds[claim.ours]), np.array(seconds[claim.other])
    ratios = other / ours if claim.unit == FASTER else ours / other
    return finding(
        claim.name, ratios.tolist(), claim.bound, claim.unit, settings,
        seconds={name: spread(seconds[name]) for name in (claim.ours, claim.other)},
    )  # fmt: skip


def finding(
    name: str,
    samples: Sequence[float],
    bound: float | None,
    unit: str,
    settings: Mapping[str, Any],
    **more: Any,
) -> Finding:
    """Judge samples of one figure by their median.

    Parameters
    ----------
    name : str
        Of the comparison, within its part.
    samples : sequence of float
    bound : float or None
        The least (FASTER), or the most, that reaches the goal; None where there is none.
    unit : str
    settings : dict
    **more
        What else is kept.

    Returns
    -------
    dict
        The samples' spread as `value`, and how many they were; `reached` by the median; `clear` if
        the noise does not touch the goal.
    """
    value = spread(samples)
    measured = {
        "name": name, "status": "measured", "unit": unit, "value": value, "samples": len(samples),
        "settings": dict(settings), **more,
    }  # fmt: skip
    if bound is None:
        return measured | {"goal": None, "reached": None, "clear": None}
    at_least = unit == FASTER

    def reaches(figure: float) -> bool:
        return figure >= bound if at_least else figure <= bound

    reached = reaches(value["median"])
    return measured | {
        "goal": {"at": "least" if at_least else "most", "bound": bound}, "reached": reached,
        "clear": all(reaches(value[p]) == reached for p in ("p20", "p80")),
    }  # fmt: skip


def not_measured(claim: Claim, reason: str, settings: Mapping[str, Any]) -> Finding:
    """Make the finding of a comparison that lacks one side."""
    at = "least" if claim.unit == FASTER else "most"
    return {
        "name": claim.name, "status": "not measured", "reason": reason, "unit": claim.unit,
        "goal": None if claim.bound is None else {"at": at, "bound": claim.bound},
        "reached": None, "settings": dict(settings),
    }  # fmt: skip


def measure(
    claims: Sequence[Claim],
    makers: Mapping[str, Callable[[], Contender]],
    *,
    tolerances: Mapping[str, float],
    settings: Mapping[str, Any],
    rounds: int,
    budget_s: float = math.inf,
    warm_up: int = 1,
) -> list[Finding]:
    """Make the providers, send each through the gate, time those that passed, judge the claims.

    Parameters
    ----------
    claims : sequence of Claim
    makers : dict of str to callable
        Each returns a provider, or raises: `ImportError` if it is not installed. The first is the
        yardstick of the gate.
    tolerances : dict of str to float
        For each name in the providers' results, as in `expect_same`.
    settings : dict
        Kept beside the figures.
    rounds, budget_s, warm_up
        As in `side_by_side`.

    Returns
    -------
    list of dict
        A finding for each claim; a provider that fails takes with it only its own.
    """
    ready: dict[str, Callable[[], Any]] = {}
    reasons: dict[str, str] = {}
    yardstick = next(iter(makers))
    expected: Mapping[str, Any] | None = None
    for name, make in makers.items():
        try:
            provider = make()
            results = provider.result()
            if name == yardstick:
                expected = results
            elif expected is None:
                raise GateError(f"no yardstick: {yardstick} failed")
            else:
                for key, tolerance in tolerances.items():
                    expect_same(f"{name}: {key}", results[key], expected[key], tolerance)
            ready[name] = provider.run
        except Exception as error:
            reasons[name] = f"{name}: {describe(error)}"
    wanted = {name for claim in claims for name in (claim.ours, claim.other)}
    calls = {name: run for name, run in ready.items() if name in wanted}
    seconds = side_by_side(calls, rounds=rounds, budget_s=budget_s, warm_up=warm_up)
    findings = []
    for claim in claims:
        missing = [reasons[name] for name in (claim.ours, claim.other) if name in reasons]
        if missing:
            findings.append(not_measured(claim, "; ".join(missing), settings))
        else:
            findings.append(judge(claim, seconds, settings))
    return findings


def expect_same(name: str, actual: Any, expected: Any, tolerance: float) -> None:
    """Refuse to time what differs from its yardstick.

    Parameters
    ----------
    name : str
        Of the provider and the result.
    actual, expected : array_like
    tolerance : float
        Of the largest difference, as a share of the largest expected magnitude.

    Raises
    ------
    GateError
        If a shape differs, or a number by more than that, or is not finite.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise GateError(f"{name}: expected shape {expected.shape}, got {actual.shape}")
    if not expected.size:
        return
    difference = np.abs(actual.astype(np.float64) - expected).max()
    allowed = tolerance * np.abs(expected).max()
    if not difference <= allowed:  # not >: NaN must not pass
        raise GateError(f"{name}: differs by {difference:.3g}, allowed are {allowed:.3g}")


def describe(error: BaseException) -> str:
    """Say in one line what went wrong, without the paths of this machine."""
    if isinstance(error, ImportError):
        return f"not installed ({error.name or error})"
    kind = "gate" if isinstance(error, GateError) else type(error).__name__
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{kind}: {without_folders(line)}"[:300]


def without_folders(text: str) -> str:
    """Cut absolute paths down to their last part."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":]+/)+", "", text)
