"""Accesses through addresses that stand in a table: proved by what a contract says it holds."""

from collections.abc import Callable

import pytest
import torch

pytest.importorskip("z3")

from proving import proved

from gptwin.kernels.optimizer.ema import BLOCK, ema_kernel
from gptwin.kernels.optimizer.tensor_table import tensor_table
from gptwin.lab.prove.safe.asked.questions import PROVED
from gptwin.lab.prove.safe.launches.call import Call
from gptwin.lab.prove.safe.launches.contract import read
from gptwin.lab.prove.safe.launches.holding import violations
from gptwin.lab.twins.catalogue import TWINS

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
    "first_block_unknown_broken": {"bounds"},
    "a_number_as_address_broken": {"bounds"},
    "two_addresses_broken": {"bounds"},
    "another_column_broken": {"bounds"},
    "another_row_broken": {"bounds"},
    "two_widths_broken": {"bounds", "race"},
}


@pytest.mark.parametrize("kernel", FAULTS)
def test_what_a_table_does_not_promise_is_not_proved(kernel: str) -> None:
    (first, *_) = [result for result in proved("tables.py").results if result.kernel == kernel]
    assert not first.problem and first.findings
    open_kinds = {f.kind for f in first.findings if f.verdict != PROVED}
    # A store that is not known to be in bounds is not known to be apart from others', either.
    assert open_kinds - {"race"} == FAULTS[kernel] - {"race"}
    assert open_kinds >= FAULTS[kernel]


@pytest.mark.parametrize("file", ["written_table.py", "written_ids.py", "swapped_ids.py"])
def test_a_promise_of_what_is_written_is_refused(file: str) -> None:
    with pytest.raises(ValueError, match="which it writes"):
        proved(file)


@pytest.mark.parametrize("line", ["addresses(x)", "addresses(x.value[:, 1], x.value[:, 0])"])
def test_addresses_that_say_nothing_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="addresses"):
        read(line)


Change = Callable[[torch.Tensor], int]


def _table_of(sizes: list[int], change: dict[tuple[int, int], Change]) -> list[str]:
    """Build a table as `ema` does, change it, and hold it against the kernel's contract."""
    triples = [tuple(torch.zeros(n) for _ in range(3)) for n in sizes]
    table, n_blocks = tensor_table(triples, BLOCK)
    assert table is not None
    built = [row for row in triples if row[0].numel()]
    assert table.rows[:, 2:].tolist() == [[t.data_ptr() for t in row] for row in built]
    assert table.rows[:, 0].tolist() == [row[0].numel() for row in built]
    for place, of_rows in change.items():
        table.rows[place] = of_rows(table.rows)
    call = Call(ema_kernel, (n_blocks,), (table, 0.1, 0.9), {"PARAMETER_DTYPE": 0, "BLOCK": BLOCK})
    return violations(read(TWINS["ema"].contracts["ema_kernel"]), call)


def test_the_tables_that_are_built_are_as_their_contract_says() -> None:
    assert not _table_of([3, 0, BLOCK + 1, 1, 2 * BLOCK], {})


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [((0, 1), lambda rows: 1, "[0, 1], got 1"), ((1, 1), lambda rows: 6, "[1, 1], got 6"),
     ((2, 0), lambda rows: 0, "[2, 0], got 0"),
     ((1, 3), lambda rows: rows[0, 3], "rows 0 and 1 at one address"),
     ((1, 3), lambda rows: rows[1, 2] + 4, "parts of one in row 1")],
)  # fmt: skip
def test_another_table_is_told(place: tuple[int, int], value: Change, said: str) -> None:
    # A row at another's address may reach into what else lies behind that one.
    found = _table_of([3, 0, BLOCK + 1, 1, 2 * BLOCK], {place: value})
    assert any(said in one for one in found)
