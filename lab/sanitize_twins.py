"""What `gptwin sanitize` runs of the project's own: each twin, and what updates in place."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..kernels import adamw, ema, launch
from .check import Prepared, prepare, run
from .storages import Storage, Storages
from .twin import Case, Twin
from .twins import TWINS
from .verify import variants


class TwinTarget:
    """A twin's kernel on one case, forward and backward.

    The caller's are its arguments, and from backward on what forward returned and saved.

    Parameters
    ----------
    twin : Twin
    case : Case
        `"configuration"` selects the autotune configuration.
    dtype : str
        As in `check`.
    """

    def __init__(self, twin: Twin, case: Case, dtype: str) -> None:
        self.twin, self.case = twin, case
        self.name = f"{twin.name} {dtype} {json.dumps(case)}"
        self._prepared = prepare(twin, case, dtype, "cpu", None)
        self._n_inputs = 0

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Run the twin's kernel; see `Target`."""
        prepared = self._prepared
        for tensor in _tensors_of(prepared):
            storages.of(tensor)

        def operation(**arguments: Any) -> Any:
            self._n_inputs = storages.count
            results = self.twin.kernel(**arguments)
            self._n_inputs = storages.count
            return results

        with launch.backend("triton"), launch.configuration(self.case.get("configuration", 0)):
            return run(self.twin, operation, prepared)

    def is_input(self, storage: Storage) -> bool:
        """Say whether the memory was there before; see `Target`."""
        return storage.number < self._n_inputs

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Allow nothing."""
        return []


@dataclasses.dataclass(frozen=True)
class InPlace:
    """An operation that updates some of its arguments in place.

    Attributes
    ----------
    twin : str
        Whose cases it runs.
    operation : callable
        `(lists of tensors by kind, options)`.
    kinds : tuple of str
        The kinds of tensors in those lists: `parameter_0` is of kind "parameter".
    updates : tuple of str
        The kinds that are written.
    """

    twin: str
    operation: Callable[[dict[str, list[torch.Tensor]], dict[str, Any]], Any]
    kinds: tuple[str, ...]
    updates: tuple[str, ...]


IN_PLACE = {
    "adamw_": InPlace(
        "adamw",
        lambda lists, options: adamw.adamw_(*lists.values(), **options),
        ("parameter", "gradient", "first_moment", "second_moment"),
        ("parameter", "first_moment", "second_moment"),
    ),
    "ema_": InPlace(
        "ema",
        lambda lists, options: ema.ema_(lists["average"], lists["parameter"], **options),
        ("average", "parameter"),
        ("average",),
    ),
}


class InPlaceTarget:
    """An update in place, on one case of its twin in float32.

    Parameters
    ----------
    name : str
        In `IN_PLACE`.
    case : Case
        Of its twin.
    """

    def __init__(self, name: str, case: Case) -> None:
        self.call = IN_PLACE[name]
        self.name = f"{name} float32 {json.dumps(case)}"
        self._prepared = prepare(TWINS[self.call.twin], case, "float32", "cpu", None)
        self._n_inputs = 0

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Update copies, so that every run begins with the same; see `Target`."""
        tensors = {name: t.clone() for name, t in self._prepared.tensors.items()}
        lists = {
            kind: [t for name, t in tensors.items() if name.startswith(kind)]
            for kind in self.call.kinds
        }
        self._n_inputs = storages.count
        with launch.backend("triton"):
            self.call.operation(lists, self._prepared.options)
        return {n: t for n, t in tensors.items() if n.startswith(self.call.updates)}

    def is_input(self, storage: Storage) -> bool:
        """Say whether the memory was there before; see `Target`."""
        return storage.number < self._n_inputs

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Allow what `InPlace.updates` declares."""
        return list(results.values())


def _tensors_of(prepared: Prepared) -> Iterator[torch.Tensor]:
    values = (*prepared.tensors.values(), *prepared.options.values(), *prepared.d_results)
    return (value for value in values if isinstance(value, torch.Tensor))


def cases(name: str) -> list[Case]:
    """List the cases that are run: each corner, each configuration, and strides with gaps.

    Parameters
    ----------
    name : str
        Of a twin, or in `IN_PLACE`.

    Returns
    -------
    list of Case
    """
    twin = TWINS[IN_PLACE[name].twin if name in IN_PLACE else name]
    n_configurations = 1 + max(index for _, index in variants(twin))
    n_cases = max(len(twin.corners), n_configurations)
    layouts = {"layout": "row_pitch", "d_layout": "every_other"}
    return [
        *(
            twin.corners[i % len(twin.corners)] | {"configuration": i % n_configurations}
            for i in range(n_cases)
        ),
        twin.corners[0] | layouts,
    ]
