"""Every operation is the value of its forward pass, and says so of itself."""

import importlib
import inspect
import pickle
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from gptwin import core
from gptwin.core.layers.softmax import softmax, softmax_forward
from gptwin.core.operation import value_of, without_saved

ROOT = Path(core.__file__).parent
MODULES = [
    importlib.import_module(
        ".".join(["gptwin.core", *path.relative_to(ROOT).with_suffix("").parts])
    )
    for path in sorted(ROOT.glob("*/*.py"))
    if path.name != "__init__.py"
]
OPERATIONS = {
    name.removesuffix("_forward"): module
    for module in MODULES
    for name in vars(module)
    if name == module.__name__.split(".")[-1] + "_forward"
}


def test_there_are_23_operations_with_a_forward_pass_and_a_twin() -> None:
    assert len(OPERATIONS.keys() - {"finetuning_loss"}) == 23  # a sum of two losses, no kernel


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described_as_its_forward_pass_but_for_what_is_saved(name: str) -> None:
    operation, forward = (getattr(OPERATIONS[name], n) for n in (name, f"{name}_forward"))
    signature, of_forward = inspect.signature(operation), inspect.signature(forward)
    assert signature.parameters == of_forward.parameters
    assert signature.return_annotation == get_args(of_forward.return_annotation)[0]
    assert operation.__name__ == operation.__qualname__ == name
    assert pickle.loads(pickle.dumps(operation)) is operation

    described, of_both = inspect.getdoc(operation), inspect.getdoc(forward)
    assert described is not None and of_both is not None
    assert "\nsaved : " in of_both and "saved" not in described
    assert "Returns\n-------\n" in described
    removed = set(of_both.splitlines()) - set(described.splitlines())
    assert all(line.startswith(("saved : ", "    ")) for line in removed), removed


def test_the_value_is_the_first_of_what_forward_returns() -> None:
    x = np.arange(6.0).reshape(2, 3)
    result, _ = softmax_forward(x, scale=0.5)
    np.testing.assert_array_equal(softmax(x, scale=0.5), result)


def test_the_entry_of_what_is_saved_is_removed_whole() -> None:
    def twice_forward(x: float) -> tuple[float, None]:
        """Double.

        Returns
        -------
        result : float
            2x.
        saved : None
            Nothing,
            on two lines.

        Raises
        ------
        ValueError
            Never.
        """
        return 2 * x, None

    expected = "Returns\n-------\nresult : float\n    2x.\n\nRaises\n------\nValueError\n    Never."
    assert inspect.getdoc(value_of(twice_forward)) == f"Double.\n\n{expected}"
    assert without_saved("saved : tuple\n    All.") == ""
