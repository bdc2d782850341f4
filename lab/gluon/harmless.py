"""Mutants that change nothing, and why: of the project's kernels, and of such as are built alike.

A reason holds for all mutants of one kind whose text it matches. What stands here is no guess of
the model's: the order in question is one that PTX leaves to the hardware anyway, or other barriers
give it, too.
"""

import re

from .mutants import Verdict

WAITS = r"(mbarrier\.wait|tma\.store_wait|warpgroup_mma_wait)\("
COPIES = r"tma\.async_(copy_global_to_shared|load)\("

# What is broken, how, a pattern of the text, and why nothing depends on it.
HARMLESS = [
    (
        "neighbours", "swapped", r"(mbarrier\.init|new_\w+)\(.*\|.*(mbarrier\.init|new_\w+)\(",
        "two barriers are new before the partitions begin, whichever is first",
    ),
    (
        "neighbours", "swapped", r"for i in gl\.static_range.*\| for i in gl\.static_range",
        "two loops that initialise: all barriers are new before the partitions begin",
    ),
    (
        "neighbours", "swapped", rf"{COPIES}.*\| mbarrier\.expect\(",
        "bytes may come before they are expected: the phase cannot end without expect's arrival",
    ),
    (
        "neighbours", "swapped", rf"^([\w, ]+ = )?{WAITS}",
        "a wait comes earlier: order is added and none lost, and nobody waits for what it delays",
    ),
    (
        "neighbours", "swapped", r"fill\(values, .*\| fill\(keys,",
        "each ring is filled in its own order, and a tile's keys are waited for without its values",
    ),
    (
        "neighbours", "swapped", r"(release\(keys|arrive\(k_empty).*\| .*warpgroup_mma_wait\(1",
        "the keys' place is filled again after the values of the tile before have been released, "
        "and they are released after a wait for both products",
    ),
    (
        "expect of (ready|q_full)", "next stage", r"",
        "in turn each of the two barriers still expects once, and as many bytes, before any wait",
    ),
    (
        r"arrive of keys\.empty", "left out", r"MASKED=True",
        "the masked walk takes the last two tiles, whose places are not filled again",
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
            and kind == verdict.kind
            and re.search(text, verdict.text)
        ):
            return reason
    return ""
