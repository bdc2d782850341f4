"""Accesses through addresses that stand in a table: proved by what a contract says it holds."""

import pytest

pytest.importorskip("z3")

from proving import proved

from gptwin.lab.prove.safe.asked.questions import PROVED
from gptwin.lab.prove.safe.launches.contract import read

# What is not proved of each, and nothing else.
FAULTS = {
    "copied_fixed": set(),
    "one_beyond_broken": {"bounds"},
    "wrong_length_broken": {"bounds"},
    "next_row_broken": {"bounds"},
    "beyond_the_table_broken": {"bounds"},
    "not_an_address_broken": {"bounds"},
    "moved_address_broken": {"bounds"},
    "twice_broken": {"race"},
    "shifted_in_place_broken": {"race"},
}


@pytest.mark.parametrize("kernel", FAULTS)
def test_what_a_table_does_not_promise_is_not_proved(kernel: str) -> None:
    (first, *_) = [result for result in proved("tables.py").results if result.kernel == kernel]
    assert not first.problem and first.findings
    open_kinds = {f.kind for f in first.findings if f.verdict != PROVED}
    # A store that is not known to be in bounds is not known to be apart from others', either.
    assert open_kinds - {"race"} == FAULTS[kernel] - {"race"}
    assert open_kinds >= FAULTS[kernel]


@pytest.mark.parametrize("line", ["addresses(x)", "addresses(x.value[:, 1], x.value[:, 0])"])
def test_addresses_that_say_nothing_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="addresses"):
        read(line)
