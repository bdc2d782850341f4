"""How tiles get from memory to the warps that multiply them: rings of tiles with barriers.

A producer asks TMA for tiles, a few ahead of the consumers that use them. A ring has as many places
(stages) as tiles may be ahead, and each place has two barriers:

    producer:  wait until "empty"  →  ask for the copy; its last byte completes "full"
    consumer:  wait until "full"   →  use the tile      →  arrive at "empty"

A barrier's phase flips, 0 to 1 to 0, each time that all have arrived whom it counts. Who waits
names the phase that it waits to see completed: turn t uses place t mod stages for the
(t // stages)-th time, so a consumer waits for phase (t // stages) mod 2 of "full". The producer
waits for the phase before that one of "empty"; before the first turn of a place there is none, and
a barrier that is new lets pass who waits for phase 1.
"""

from typing import Any, NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

if not hasattr(tma, "async_load"):  # Triton 3.6 and 3.7 have the old names, 3.9 the new ones alone
    tma.async_load = tma.async_copy_global_to_shared
    tma.async_store = tma.async_copy_shared_to_global


class Ring(NamedTuple):
    """Places in shared memory for the tiles of one tensor.

    Attributes
    ----------
    tiles : shared memory [stage, 1, 1, row, feature]
        TMA's axes: it copies from [batch, head, row, feature].
    full : barriers [stage, 1]
        Completed by the bytes of a copy.
    empty : barriers [stage, 1]
        Completed by the arrival of every consumer.
    """

    tiles: Any
    full: Any
    empty: Any


@gluon.jit
def new_barriers(N: gl.constexpr, ARRIVALS: gl.constexpr):
    """Make barriers, each of which so many arrivals complete: [N, 1]."""
    barriers = gl.allocate_shared_memory(gl.int64, [N, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(N):
        mbarrier.init(barriers.index(i), count=ARRIVALS)
    return barriers


@gluon.jit
def new_tiles(x, STAGES: gl.constexpr):
    """Make room for tiles of a described tensor: [stage, 1, 1, row, feature]."""
    ROWS: gl.constexpr = x.block_type.shape[2]
    FEATURES: gl.constexpr = x.block_type.shape[3]
    return gl.allocate_shared_memory(x.dtype, [STAGES, 1, 1, ROWS, FEATURES], x.layout)


@gluon.jit
def new_ring(x, STAGES: gl.constexpr, CONSUMERS: gl.constexpr):
    """Make a ring for tiles of a described tensor."""
    return Ring(new_tiles(x, STAGES), new_barriers(STAGES, 1), new_barriers(STAGES, CONSUMERS))


@gluon.jit
def place_of(ring, turn):
    """Say which place a turn uses, and the phase of its use."""
    STAGES: gl.constexpr = ring.full.shape[0]
    return turn % STAGES, (turn // STAGES) & 1


@gluon.jit
def copy_tile(x, batch, head, row, barrier, tile):
    """Ask for a copy from row on; beyond the tensor it is 0. Its bytes complete the barrier."""
    mbarrier.expect(barrier, x.block_type.nbytes)
    tma.async_load(x, [batch, head, row, 0], barrier, tile)


@gluon.jit
def fill(ring, turn, x, batch, head, row):
    """As the producer: once a place is empty, ask for its next tile."""
    place, phase = place_of(ring, turn)
    mbarrier.wait(ring.empty.index(place), phase ^ 1)
    copy_tile(x, batch, head, row, ring.full.index(place), ring.tiles.index(place))


@gluon.jit
def fill_both(ring, numbers, turn, x, batch, head, row, statistic, at):
    """As the producer: ask for a tile, and for a number of each of its rows: [stage, row]."""
    place, phase = place_of(ring, turn)
    full = ring.full.index(place)
    mbarrier.wait(ring.empty.index(place), phase ^ 1)
    mbarrier.expect(full, x.block_type.nbytes + statistic.block_type.nbytes)
    tma.async_load(x, [batch, head, row, 0], full, ring.tiles.index(place))
    tma.async_load(statistic, [at], full, numbers.index(place))


@gluon.jit
def arrived(ring, turn):
    """As a consumer: wait for the tile of a turn, and return it: [row, feature]."""
    place, phase = place_of(ring, turn)
    mbarrier.wait(ring.full.index(place), phase)
    return matrix(ring.tiles.index(place))


@gluon.jit
def release(ring, turn):
    """As a consumer: say that the tile of a turn is used up."""
    place, _ = place_of(ring, turn)
    mbarrier.arrive(ring.empty.index(place), count=1)


@gluon.jit
def matrix(tile):
    """Leave out the axes of length 1: [1, 1, row, feature] -> [row, feature]."""
    return tile.reshape([tile.shape[2], tile.shape[3]])
