"""What backward reads of each query beside its tiles: lse and delta, one float32 each.

Where queries are the rows of a warpgroup's sums each thread loads the two that it needs. Where
they are the columns it needs a quarter of all, for each tile that streams past: TMA brings them.
"""

import math

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

LOG2_E = gl.constexpr(math.log2(math.e))


@gluon.jit
def new_numbers(x, STAGES: gl.constexpr):
    """Make room for the numbers of tiles: [stage, row]."""
    return gl.allocate_shared_memory(x.dtype, [STAGES, x.block_type.shape[0]], x.layout)


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
