"""What users do with any operation of PyTorch's: every twin stands it, or says by name what not.

A new entry in the catalogue is tested here as it is. Cases are each twin's own corners.
"""

import numpy as np
import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays, to_numpy, to_torch
from gptwin.lab.twins.twin import as_tuple
from gptwin.lab.verify.check import Prepared, reference, run

each_twin = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
each_backend = pytest.mark.parametrize("backend", ("numpy", "triton", "eager"))

INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64)
# The interpreter is slow, and what it runs has been widened by then.
FEW_INTEGERS = (np.uint8, np.uint16, np.int32)


def drawn(twin, case):
    """Draw a case's arguments as NumPy arrays, all by name."""
    inputs = twin.inputs({"seed": 3} | case, RandomArrays(3))
    return inputs.tensors | inputs.options


def call(twin, backend, arguments, device):
    """Run a twin's forward pass; results as NumPy arrays."""
    if backend == "numpy":
        with np.errstate(all="ignore"):
            results, _ = twin.forward(**arguments)
        return [np.asarray(result) for result in as_tuple(results)]
    given = {
        name: to_torch(x, torch.float32, device) if isinstance(x, np.ndarray) else x
        for name, x in arguments.items()
    }
    with launch.backend(backend):
        return [result.detach().cpu().numpy() for result in as_tuple(twin.kernel(**given))]


def outcome(twin, backend, arguments, device):
    """Run it as `call` does; where it is refused, return the error's text instead."""
    try:
        return call(twin, backend, arguments, device)
    except ValueError as error:
        return [np.array(str(error))]


def arrays_of(kinds, arguments):
    """Name the arrays among the arguments whose dtype is of these kinds."""
    arrays = {name: x for name, x in arguments.items() if isinstance(x, np.ndarray)}
    return [name for name, x in arrays.items() if x.dtype.kind in kinds]


def smallest_with(kinds, twin):
    """Yield each array argument of these kinds, and the smallest corner's arguments with it."""
    by_size = sorted(
        (drawn(twin, case) for case in (*twin.corners, *twin.studies)),
        key=lambda arguments: sum(arguments[name].size for name in arrays_of("fiub", arguments)),
    )
    found = {}
    for arguments in by_size:
        for name in arrays_of(kinds, arguments):
            found.setdefault(name, arguments)
    yield from found.items()


def error_about(name):
    """Write the beginning of an error: of parameter_0 it names parameters[0]."""
    kind, _, number = name.rpartition("_")
    return rf"^({name}|{kind}s\[{number}\]): expected"


@each_backend
@each_twin
def test_integers_of_any_type_mean_the_same(twin, backend, device):
    """In uint8, 1 − 3 is 254 and −100 is 156."""
    for name, arguments in smallest_with("iu", twin):
        expected = {}
        for dtype in FEW_INTEGERS if backend == "triton" else INTEGERS:
            limits = np.iinfo(dtype)
            fitting = arguments[name].clip(limits.min, limits.max)  # what the type can hold
            key = fitting.tobytes()
            if key not in expected:
                expected[key] = outcome(twin, backend, arguments | {name: fitting}, device)
            found = outcome(twin, backend, arguments | {name: fitting.astype(dtype)}, device)
            for was, now in zip(expected[key], found, strict=True):
                np.testing.assert_array_equal(now, was, err_msg=f"{name} of {dtype.__name__}")


@each_backend
@each_twin
def test_an_array_of_another_kind_is_refused_by_name(twin, backend, device):
    """Integers or bools where floats are meant, and the other way round."""
    for kinds, others in (("f", (int, bool)), ("iu", (float, bool)), ("b", (float, int))):
        for name, arguments in smallest_with(kinds, twin):
            for other in others:
                wrong = np.ones_like(arguments[name], dtype=other)
                with pytest.raises(ValueError, match=error_about(name)):
                    call(twin, backend, arguments | {name: wrong}, device)


def emptied(twin, arguments):
    """Yield the name of each axis, and the arguments without anything on it."""
    axes = {}  # by array: its axes' names, of which arrays of fewer axes have the last
    for name in arrays_of("fiub", arguments):
        names = twin.axes.get(name, "").split()
        axes[name] = dict(zip(reversed(names), reversed(range(arguments[name].ndim)), strict=False))
    for axis in dict.fromkeys(axis for names in axes.values() for axis in names):
        yield (
            axis,
            {
                name: x.take([], axes[name][axis]) if axis in axes.get(name, ()) else x
                for name, x in arguments.items()
            },
        )


def both_passes(twin, backend, arguments, device):
    """Run a twin both ways; results and gradients by name, or what was expected instead."""
    tensors = {name: x for name, x in arguments.items() if name in twin.arguments}
    options = {name: x for name, x in arguments.items() if name not in twin.arguments}
    try:
        results = reference(twin, tensors, options, ())
        cotangents = [np.ones(x.shape) for n, x in results.items() if n not in twin.statistics]
        if backend == "numpy":
            return reference(twin, tensors, options, cotangents)
        on_device = {
            name: to_torch(x, torch.float32, device) if isinstance(x, np.ndarray) else x
            for name, x in arguments.items()
        }
        prepared = Prepared(
            {name: on_device.pop(name) for name in tensors},
            on_device,
            tuple(to_torch(x, torch.float32, device) for x in cotangents),
            {},
            {},
        )
        with launch.backend(backend):
            return {name: to_numpy(x) for name, x in run(twin, twin.kernel, prepared).items()}
    except ValueError as error:
        return {"refused": np.array(str(error).partition(", got")[0])}


@each_twin
def test_empty_axes_mean_the_same_or_are_refused_alike(twin, device):
    for case in twin.corners:
        arguments = drawn(twin, case)
        if sum(np.size(x) for x in arguments.values()) > 8000:
            continue  # for the interpreter; another corner has these arguments as well
        for axis, empty in emptied(twin, arguments):
            expected = both_passes(twin, "numpy", empty, device)
            for backend in ("triton", "eager"):
                found = both_passes(twin, backend, empty, device)
                assert found.keys() == expected.keys(), (axis, backend)
                for name, truth in expected.items():
                    if name == "refused":
                        assert found[name] == truth
                    else:
                        about = f"{name} without {axis}"
                        np.testing.assert_allclose(
                            found[name], truth, rtol=1e-3, atol=1e-4, err_msg=about
                        )
