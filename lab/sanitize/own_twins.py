"""What `gptwin sanitize` runs of the project's own: each twin, and what updates in place."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...kernels.common import launch
from ...kernels.optimizer import adamw, ema
from ..twins.find import find_twin
from ..twins.twin import Case, Twin
from ..verify.check import Prepared, prepare, run
from ..verify.verify import variants
from .storages import Storage, Storages


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

    Attributes
    ----------
    reached : set of (str, int)
        Kernels that were launched, each with its configuration's index.
    """

    def __init__(self, twin: Twin, case: Case, dtype: str) -> None:
        self.twin, self.case = twin, case
        self.name = f"{twin.name} {dtype} {json.dumps(case)}"
        self.reached: set[tuple[str, int]] = set()
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

        configuration = self.case.get("configuration", 0)
        with launch.backend("triton"), launch.configuration(configuration):
            with launch.recording() as log:
                results = run(self.twin, operation, prepared)
        self.reached |= {(entry.kernel, entry.configuration) for entry in log}
        return results

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


def _adamw_in_place(lists: dict[str, list[torch.Tensor]], options: dict[str, Any]) -> None:
    """Update all lists in one dtype: what a case mixes, and its norm_block, are the twin's own."""
    own = {n: o for n, o in options.items() if n not in ("mixed", "norm_block")}
    adamw.adamw_(*lists.values(), **own)


IN_PLACE = {
    "adamw_": InPlace(
        "adamw",
        _adamw_in_place,
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
        self._prepared = prepare(find_twin(self.call.twin), case, "float32", "cpu", None)
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


def targets(name: str, dtypes: list[str]) -> Iterator[TwinTarget | InPlaceTarget]:
    """Yield what is run: each corner case, strides with gaps, and what reaches the rest.

    Each target is to be run before the next is asked for: once every kernel was reached in every
    configuration, there is no next.

    Parameters
    ----------
    name : str
        Of a twin, or in `IN_PLACE`.
    dtypes : list of str
        Those to run; empty for the first one, and the last one with the gaps and with what the
        first has not reached.

    Yields
    ------
    Target
    """
    call = IN_PLACE.get(name)
    twin = find_twin(call.twin if call else name)
    with_gaps = twin.corners[0]
    if twin.launched is None:  # a user's own says what its layouts are
        with_gaps = with_gaps | {"layout": "row_pitch", "d_layout": "every_other"}
    if call is not None:
        yield from (InPlaceTarget(name, case) for case in (*twin.corners, with_gaps))
        return
    for dtype in (d for d in twin.dtypes if d in (dtypes or twin.dtypes[-1:])):
        yield TwinTarget(twin, with_gaps, dtype)
    for dtype in (d for d in twin.dtypes if d in (dtypes or twin.dtypes[:1])):
        left = set(variants(twin))
        n_configurations = 1 + max(index for _, index in left)
        for turn in range(n_configurations):
            for i, corner in enumerate(twin.corners):
                configuration = (i + turn) % n_configurations
                if turn == 0 or configuration in {index for _, index in left}:
                    target = TwinTarget(twin, corner | {"configuration": configuration}, dtype)
                    yield target
                    left -= target.reached
    if dtypes or len(twin.dtypes) == 1:
        return
    for corner in twin.corners:  # what the first dtype has no list for
        for configuration in sorted({index for _, index in left}):
            target = TwinTarget(twin, corner | {"configuration": configuration}, twin.dtypes[-1])
            yield target
            left -= target.reached
