"""What is said of products, and of who writes an element, where it holds and where it does not."""

import pytest

pytest.importorskip("z3")

from proving import proved

from gptwin.lab.prove.safe.asked.questions import PROVED

# Of products.py: what is not proved of each.
FAULTS = {
    "below_the_square_fixed": set(),
    "below_the_square_broken": {"bounds"},
    "heads_apart_fixed": set(),
    "heads_apart_broken": {"race"},
    "either_way_fixed": set(),
    "either_way_broken": {"race", "written"},
    "a_multiple_fixed": set(),
    "a_multiple_broken": {"bounds"},
}


@pytest.mark.parametrize("kernel", FAULTS)
def test_of_products_that_is_proved_which_holds(kernel: str) -> None:
    results = [result for result in proved("products.py").results if result.kernel == kernel]
    assert results and not any(result.problem for result in results)
    findings = [f for result in results for f in result.findings]
    assert {f.kind for f in findings if f.verdict != PROVED} == FAULTS[kernel]
