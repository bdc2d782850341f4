"""What a setting may be, and settings that must fit each other: checked before anything is run.

configuration.py names the bound of each setting beside its default.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.checks import refuse


class Bound(NamedTuple):
    """What a setting may be.

    Attributes
    ----------
    words : str
        For the error: "at least 1".
    holds : callable
        Whether a value is within.
    """

    words: str
    holds: Callable[[Any], bool]


def one_of(*words: str) -> Bound:
    """Return the bound of a setting that is one of some words."""
    return Bound(" or ".join(map(repr, words)), words.__contains__)


ANY = Bound("anything", lambda value: True)
COUNT = Bound("at least 1", lambda n: n >= 1)
FROM_0 = Bound("at least 0", lambda x: 0 <= x < math.inf)
ABOVE_0 = Bound("above 0, and finite", lambda x: 0 < x < math.inf)
LIMIT = Bound("above 0 (inf: no limit)", lambda x: x > 0)
FINITE = Bound("a finite number", math.isfinite)
SHARE = Bound("a share from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_1 = Bound("from 0 to below 1", lambda x: 0 <= x < 1)
DECAYS = Bound("two numbers from 0 to below 1", lambda pair: all(0 <= x < 1 for x in pair))
SEED = Bound("from 0 to below 2^63", lambda n: 0 <= n < 2**63)
SIZE = Bound("from 1 to 2^20", lambda n: 1 <= n <= 2**20)
DEPTH = Bound("from 1 to 10,000", lambda n: 1 <= n <= 10_000)
VOCABULARY = Bound("from 262 (bytes, special tokens) to 2^24", lambda n: 262 <= n <= 2**24)
SEVERAL = Bound("at least 2", lambda n: n >= 2)
NAMED = Bound("the name of a folder", bool)
ON_LONG = one_of("error", "truncate", "drop")


def setting(default: Any, bound: Bound, source: str = "") -> Any:
    """Return a dataclass field of a setting.

    Parameters
    ----------
    default : object
        The value.
    bound : Bound
        What it may be.
    source : str
        Where the default was published: the paper and the place in it.

    Returns
    -------
    dataclasses.Field
    """
    metadata = {"bound": bound} | ({"source": source} if source else {})
    return dataclasses.field(default=default, metadata=metadata)


def check(configuration: Any) -> None:
    """Refuse settings that are out of bounds, each alone and those that must fit each other.

    Parameters
    ----------
    configuration : Configuration
        All stages' settings are looked at, whatever is to run.

    Raises
    ------
    ValueError
        Naming the setting, what it may be and what it is.
    """
    for table in dataclasses.fields(configuration):
        settings = getattr(configuration, table.name)
        for field in dataclasses.fields(settings):
            value, bound = getattr(settings, field.name), field.metadata["bound"]
            if not bound.holds(value):
                refuse(f"{table.name}.{field.name}", bound.words, repr(value))
    c = configuration
    _check_fit(c)
    if not c.model.weights:
        try:
            n_ctx = c.model.architecture(c.model.vocab_size).n_ctx
        except ValueError as error:
            raise ValueError(f"model.{error}") from None
        check_context(c, n_ctx)


def _check_fit(c: Any) -> None:
    """Refuse settings that do not fit each other."""
    if c.reward.k_max < c.reward.k_min:
        refuse("reward.k_max", f"at least k_min = {c.reward.k_min}", str(c.reward.k_max))
    if c.ppo.episodes < c.ppo.batch:
        expected = f"at least a batch of {c.ppo.batch}"
        refuse("ppo.episodes", expected, str(c.ppo.episodes), "no iteration would be done")
    if c.ppo.minibatches > c.ppo.batch:
        expected = f"at most the {c.ppo.batch} responses of ppo.batch"
        refuse("ppo.minibatches", expected, str(c.ppo.minibatches), "a minibatch without a row")
    for name in ("pretrain", "sft", "reward"):
        table = getattr(c, name)
        if table.accumulate > table.batch:
            expected = f"at most {name}.batch = {table.batch}"
            refuse(f"{name}.accumulate", expected, str(table.accumulate), "an empty micro-batch")


def check_context(configuration: Any, n_ctx: int) -> None:
    """Refuse lengths that a model's context has no room for.

    Parameters
    ----------
    configuration : Configuration
    n_ctx : int
        Of the model that is trained.

    Raises
    ------
    ValueError
        Naming the setting.
    """
    time, most = configuration.pretrain.time, configuration.ppo.max_response
    if time > n_ctx:
        refuse("pretrain.time", f"at most the model's n_ctx = {n_ctx}", str(time))
    if most >= n_ctx:
        expected = f"below the model's n_ctx = {n_ctx}, to leave room for a prompt"
        refuse("ppo.max_response", expected, str(most))
