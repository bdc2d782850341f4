"""What several twins draw alike: Hypothesis strategies for the entries of their cases."""

from hypothesis import strategies as st

from .draw import COTANGENT_LAYOUTS, LAYOUTS

seeds = st.integers(0, 2**32 - 1)
layouts = st.sampled_from(LAYOUTS)
cotangent_layouts = st.sampled_from(COTANGENT_LAYOUTS)

# How a case's tensors lie in memory, and what they hold; the second where nothing goes backward.
any_tensors = {"layout": layouts, "d_layout": cotangent_layouts, "seed": seeds}
any_inputs = {"layout": layouts, "seed": seeds}


def sizes(*ranges: tuple[int, int]) -> st.SearchStrategy[int]:
    """Draw from one of several ranges, each as likely, so that rare paths are reached."""
    return st.one_of(*(st.integers(low, high) for low, high in ranges))


def tensor_shapes(
    block: int, most: int, *others: st.SearchStrategy[int]
) -> st.SearchStrategy[list[list[int]]]:
    """Draw the shapes of 1 to `most` tensors: small ones, vectors of about a block, and others."""
    small = st.lists(st.integers(0, 12), min_size=1, max_size=3)
    vectors = (st.sampled_from([1, block - 1, block, block + 1]), *others)
    shape = st.one_of(small, *(vector.map(lambda n: [n]) for vector in vectors))
    return st.lists(shape, min_size=1, max_size=most)
