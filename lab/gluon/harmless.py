"""Mutants that change nothing, and why: of the project's kernels, and of such as are built alike.

A reason holds for all mutants of one kind whose text it matches. What stands here is no guess of
the model's: the order in question is one that PTX leaves to the hardware anyway, or other barriers
give it, too.
"""

import re

from .mutants import Verdict

# What a statement does, by what it calls: the project's own functions among them.
INIT = r"(mbarrier\.init|new_\w+)\("
WAIT = r"(mbarrier\.wait|tma\.store_wait|warpgroup_mma_wait|arrived)\("
ARRIVE = r"(mbarrier\.arrive|release)\("
COPY = r"((tma|cp|async_copy)\.async_\w+|copy_tile)\("
TOUCH = rf"({COPY}|\.store\(|\.load\(|numbers_of\(|warpgroup_mma\(|begin_\w+\()"


def _swapped(now_first: str, now_second: str) -> str:
    """Describe neighbours by what they do, in the order of the swap."""
    return rf"^[^|]*{now_first}.*\| .*{now_second}"


# What is broken, how, a pattern of the text, and why nothing depends on it.
HARMLESS = [
    (
        "neighbours", "swapped", _swapped(INIT, INIT),
        "two barriers are new before the partitions begin, whichever is first",
    ),
    (
        "neighbours", "swapped", r"for i in gl\.static_range.*\| for i in gl\.static_range",
        "two loops that initialise: all barriers are new before the partitions begin",
    ),
    (
        "neighbours", "swapped", _swapped(COPY, r"mbarrier\.expect\("),
        "bytes may come before they are expected: the phase cannot end without expect's arrival",
    ),
    (
        "neighbours", "swapped",
        r"(release\(keys|arrive\(k_empty|release\(values).*\| .*warpgroup_mma_wait\([01]",
        "the producer asks for the next tile of this ring after it has waited for the other ring's "
        "place, which is released after a wait for all products",
    ),
    (
        "neighbours", "swapped", _swapped(WAIT, ""),
        "a wait comes earlier: order is added and none lost, and nobody waits for what it delays",
    ),
    (
        "neighbours", "swapped", _swapped("", ARRIVE),
        "an arrival comes later: order is added and none lost, and nobody waits for what it delays",
    ),
    (
        "neighbours", "swapped", _swapped(r"fill\w*\(", r"fill\w*\("),
        "each ring is filled in its own order, and a tile of one is waited for without the other's",
    ),
    (
        "neighbours", "swapped", _swapped(TOUCH, TOUCH),
        "they touch different memory, or both read it, and neither tells anybody of the other",
    ),
    (
        "neighbours", "swapped", _swapped("fence_async_shared", r"warpgroup_mma_wait\(0"),
        "the fence still comes between the loads from registers and the arrival",
    ),
    (
        "warpgroup_mma_wait", "left out|leaves one more", r"start_from\(",
        "no product is in flight there: the wait is for ptxas, as start_from says",
    ),
    (
        "neighbours", "swapped", r"start_from\(",
        "its wait has no product to wait for: it is for ptxas, as start_from says",
    ),
    (
        r"invalidate of .*", "left out", r"",
        "the memory of the barrier is not used for anything else afterwards",
    ),
    (
        "expect of (ready|q_full)", "next stage", r"",
        "in turn each of the two barriers still expects as often and as many bytes",
    ),
    (
        r"wait of values\.empty", "left out", r"fill\(values",
        "of each turn the values are released before the keys, and the producer has waited for the "
        "keys: these barriers order nothing that those of the keys do not",
    ),
]  # fmt: skip


def why_harmless(verdict: Verdict) -> str:
    """Say why a mutant changes nothing.

    Parameters
    ----------
    verdict : Verdict
        One that nothing was found of.

    Returns
    -------
    str
        "" if no reason is known.
    """
    for what, kind, text, reason in HARMLESS:
        if (
            re.fullmatch(what, verdict.what)
            and re.fullmatch(kind, verdict.kind)
            and re.search(text, verdict.text)
        ):
            return reason
    return ""
