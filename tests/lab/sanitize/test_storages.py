"""Which bytes nothing has written, as PyTorch's operations tell it."""

from collections.abc import Callable

import pytest
import torch

from gptwin.lab.sanitize.storages import Storages, element_positions


@pytest.mark.parametrize(
    ("make", "unwritten", "holds_data"),
    [
        (lambda: torch.empty(4), [0, 1, 2, 3], False),
        (lambda: torch.randn(4).new_empty(4), [0, 1, 2, 3], False),
        (lambda: torch.empty_like(torch.randn(2, 2)).T, [0, 1, 2, 3], False),
        (lambda: torch.zeros(4), [], False),
        (lambda: torch.full((4,), 2.0), [], False),
        (lambda: torch.randn(4), [], True),
        (lambda: torch.tensor([1.0, 2.0]), [], True),
        (lambda: torch.empty(4).zero_(), [], False),
        (lambda: torch.empty(4) + 1, [], True),
        (lambda: torch.add(torch.ones(4), 1, out=torch.empty(4)), [], True),
        (lambda: torch.empty(4).uniform_(), [], True),
    ],
)
def test_what_is_unwritten(
    make: Callable[[], torch.Tensor], unwritten: list[int], holds_data: bool
) -> None:
    with Storages() as storages:
        tensor = make()
    storage = storages.of(tensor)
    positions = tensor.data_ptr() - storage.start + element_positions(tensor)
    assert storage.is_unwritten(positions, 4).nonzero()[0].tolist() == unwritten
    assert storage.holds_data is holds_data


def test_a_view_writes_its_own_elements_alone() -> None:
    with Storages() as storages:
        tensor = torch.empty(3, 4)
        tensor[:, 1::2] = 1.0
        storage = storages.of(tensor)
        assert storages.of(tensor[1]) is storage
    unwritten = storage.is_unwritten(element_positions(tensor), 4).reshape(3, 4)
    assert unwritten.tolist() == [[True, False, True, False]] * 3


def test_memory_that_is_given_out_again_is_another() -> None:
    with Storages() as storages:
        first = torch.zeros(1000)
        number, address = storages.of(first).number, first.data_ptr()
        del first
        second = torch.empty(1000)
        if second.data_ptr() == address:  # as the allocator mostly does
            assert storages.of(second).number > number
            assert storages.of(second).unwritten is not None
        (found,) = storages.at(element_positions(second)[:1] + second.data_ptr())
        assert found is storages.of(second)
