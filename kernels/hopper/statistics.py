"""What backward reads of each query beside its tiles: lse and delta, one float32 each.

Where queries are the rows of a warpgroup's sums each thread loads the two that it needs. Where
they are the columns it needs a quarter of all, for each tile that streams past: TMA brings them.
"""

import math

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from .rings import place_of

LOG2_E = gl.constexpr(math.log2(math.e))


@gluon.jit
def new_numbers(x, STAGES: gl.constexpr):
    """Make room for the numbers of tiles: [stage, row]."""
    return gl.allocate_shared_memory(x.dtype, [STAGES, x.block_type.shape[0]], x.layout)


@gluon.jit
def numbers_of(ring, numbers, turn, LAYOUT: gl.constexpr):
    """Read the numbers that came with a tile of a ring."""
    place, _ = place_of(ring, turn)
    return numbers.index(place).load(LAYOUT)


@gluon.jit
def only_inside(x, first, n, other):
    """Replace what TMA brought from beyond a head's n numbers: the next head's, NaN perhaps."""
    COUNT: gl.constexpr = x.shape[0]
    if first + COUNT > n:
        x = gl.where(first + gl.arange(0, COUNT, x.type.layout) < n, x, other)
    return x


@gluon.jit
def load_rows(ptr, queries, n_query):
    """Load a number for each query; 0 beyond them."""
    return gl.load(ptr + queries, mask=queries < n_query, other=0.0)


@gluon.jit
def as_exponent(lse):
    """Turn lse into units of log 2, and into +∞ where all scores were −∞.

    exp(s − ∞) is 0, and so is every gradient there; exp(s + ∞) would not be.
    """
    return gl.where(lse == -float("inf"), float("inf"), lse) * LOG2_E
