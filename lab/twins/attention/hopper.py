"""Cases that reach attention's kernels for Hopper, which few of the twin's own do.

They are verified where `GPTWIN_HOPPER=1` asks for these kernels: lengths that divide no tile, rings
that go round, a warpgroup with nothing to do, heads that share keys; with a causal mask or without.
"""

from ....kernels.hopper import serving
from ..twin import Case, Twin

DTYPES = ("float16", "bfloat16")
CASES: tuple[Case, ...] = (
    {"batch": 2, "head": 1, "queries": 33, "d_head": 64, "causal": True},
    {"batch": 1, "head": 2, "queries": 700, "keys": 730, "d_head": 64, "causal": True, "seed": 1},
    {"batch": 1, "head": 4, "kv_head": 2, "queries": 300, "d_head": 128, "causal": True, "seed": 2},
    {"batch": 1, "head": 2, "queries": 384, "keys": 1024, "d_head": 128, "seed": 3},
    # Without a mask there may be more queries than keys.
    {"batch": 2, "head": 4, "kv_head": 2, "queries": 200, "keys": 130, "d_head": 64,
     "minus_inf": True, "seed": 4},
)  # fmt: skip


def cases_for_hopper(twin: Twin) -> tuple[Case, ...]:
    """Return what is verified of a twin beside its corners, if kernels for Hopper are asked for.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    tuple of Case
    """
    return CASES if twin.name == "attention" and serving.asked_for() else ()
