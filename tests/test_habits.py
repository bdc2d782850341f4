"""What users do with any operation of PyTorch's: every twin stands it, or says by name what not.

A new entry in the catalogue is tested here as it is. Cases are each twin's own corners.
"""

import copy
import pickle
import threading

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


def small_cases(twin):
    """List the cases of which the smallest will be taken."""
    return (*twin.corners, *twin.studies)


def smallest_with(kinds, twin):
    """Yield each array argument of these kinds, and the smallest corner's arguments with it."""
    by_size = sorted(
        (drawn(twin, case) for case in small_cases(twin)),
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


def prepared(twin, arguments, device, dtype=torch.float32):
    """Put arguments on the device as `run` takes them, with cotangents of 1."""
    given = {name for name in twin.arguments if arguments.get(name) is not None}
    tensors = {name: x for name, x in arguments.items() if name in given}
    options = {name: x for name, x in arguments.items() if name not in given}
    results = reference(twin, tensors, options, ())
    cotangents = [np.ones(x.shape) for n, x in results.items() if n not in twin.statistics]
    on_device = {
        name: to_torch(x, dtype, device) if isinstance(x, np.ndarray) else x
        for name, x in arguments.items()
    }
    return Prepared(
        {name: on_device.pop(name) for name in tensors},
        on_device,
        tuple(to_torch(x, dtype, device) for x in cotangents),
        {},
        {},
    )


def both_passes(twin, backend, arguments, device):
    """Run a twin both ways; results and gradients by name, or what was expected instead."""
    try:
        inputs = prepared(twin, arguments, device)
        if backend == "numpy":
            tensors = {name: arguments[name] for name in inputs.tensors}
            options = {name: arguments[name] for name in inputs.options}
            return reference(twin, tensors, options, tuple(map(to_numpy, inputs.d_results)))
        with launch.backend(backend):
            return {name: to_numpy(x) for name, x in run(twin, twin.kernel, inputs).items()}
    except ValueError as error:
        return {"refused": np.array(str(error).partition(", got")[0])}


def numbers_with_arguments(twin):
    """Yield each option that is a number, and the smallest arguments with it."""
    every = [drawn(twin, case) for case in small_cases(twin)]
    found = {}
    for arguments in sorted(every, key=lambda given: sum(np.size(x) for x in given.values())):
        for name, x in arguments.items():
            if isinstance(x, (int, float)) and not isinstance(x, bool):
                found.setdefault(name, arguments)
    yield from found.items()


@each_backend
@each_twin
def test_numpys_own_numbers_mean_the_same(twin, backend, device):
    """Triton's launcher takes Python's alone: a window from an array was a raw error."""
    for name, arguments in numbers_with_arguments(twin):
        x = arguments[name]
        number = np.int64(x) if isinstance(x, int) else np.float64(x)
        expected = call(twin, backend, arguments, device)
        found = call(twin, backend, arguments | {name: number}, device)
        for was, now in zip(expected, found, strict=True):
            assert now.dtype == was.dtype, name
            np.testing.assert_array_equal(now, was, err_msg=name)
        if isinstance(x, int):
            with pytest.raises(ValueError, match=f"^{name}: expected .*got "):
                call(twin, backend, arguments | {name: x + 0.5}, device)


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


def smallest(twin):
    """Return the arguments of the smallest corner or study, with numbers near 1."""
    cases = (case | {"magnitude": 1.0, "minus_inf": False} for case in small_cases(twin))
    every = [drawn(twin, case) for case in cases]
    return min(every, key=lambda arguments: sum(np.size(x) for x in arguments.values()))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, truth in expected.items():
        torch.testing.assert_close(found[name], truth, rtol=0, atol=0, equal_nan=True, msg=name)


on_tensors = pytest.mark.parametrize("backend", ("triton", "eager"))


@each_twin
def test_gradcheck_passes_twice_or_the_second_is_refused_by_name(twin):
    """On the kernels, which know no float64, tests/test_twins.py has checks of its own."""
    if set(twin.results) == set(twin.statistics):
        pytest.skip(f"{twin.name} has no gradient")
    inputs = prepared(twin, smallest(twin), "cpu", torch.float64)
    leaves = [x.requires_grad_() for x in inputs.tensors.values()]

    def operation(*tensors):
        named = dict(zip(inputs.tensors, tensors, strict=True))
        results = zip(twin.results, as_tuple(twin.kernel(**named, **inputs.options)), strict=False)
        return tuple(result for name, result in results if name not in twin.statistics)

    with launch.backend("eager"):
        assert torch.autograd.gradcheck(operation, leaves, fast_mode=True)
        try:
            assert torch.autograd.gradgradcheck(operation, leaves, fast_mode=True)
        except RuntimeError as error:  # ours, or PyTorch's own
            assert "no second derivative" in str(error) or "is not implemented" in str(error)


def changed_in_place(tensor):
    """Write other numbers into a tensor that autograd may hold."""
    if tensor.dtype == torch.bool:
        return tensor.logical_not_()
    return tensor.copy_(tensor.flip(tuple(range(tensor.ndim))) + 1)


def to_be_changed(twin, backend):
    """Yield names of arguments to change together, and the arguments."""
    for name, arguments in smallest_with("iub", twin):
        yield [name], arguments
    arguments = smallest(twin)
    floats = arrays_of("f", arguments)
    for names in [floats] if backend == "triton" else [[name] for name in floats]:
        yield names, arguments


@on_tensors
@each_twin
def test_what_is_changed_before_backward_is_noticed_or_not_needed(twin, backend, device):
    """PyTorch's own error, or the right gradients: never others."""
    if set(twin.results) == set(twin.statistics):
        pytest.skip(f"{twin.name} has no gradient")
    for names, arguments in to_be_changed(twin, backend):
        inputs = prepared(twin, arguments, device)
        for name, x in inputs.options.items():
            if torch.is_tensor(x) and x.dtype == torch.int64:
                inputs.options[name] = x.int()  # which kernels take as it is

        def operation(**given):
            # Only a tensor that is no leaf may be written while it needs a gradient.
            copies = {n: x.clone() if torch.is_tensor(x) else x for n, x in given.items()}
            results = twin.kernel(**copies)
            with torch.no_grad():
                for name in names:  # noqa: B023 (called in here)
                    changed_in_place(copies[name])
            return results

        with launch.backend(backend):
            expected = run(twin, twin.kernel, inputs)
            try:
                assert_same(run(twin, operation, inputs), expected)
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error), names


@on_tensors
@each_twin
def test_under_autocast_it_computes_the_same(twin, backend, device):
    inputs = prepared(twin, smallest(twin), device)
    with launch.backend(backend):
        expected = run(twin, twin.kernel, inputs)

        def operation(**arguments):
            with torch.autocast(device, torch.bfloat16):
                return twin.kernel(**arguments)

        found = run(twin, operation, inputs)
    for name, truth in expected.items():
        if name.startswith("d_"):
            assert found[name].dtype == torch.float32, name
        worst = 0.03 * torch.where(truth.isfinite(), truth.abs(), 0).double().max().item()
        torch.testing.assert_close(
            found[name].double(), truth.double(), rtol=0, atol=worst, equal_nan=True, msg=name
        )


class Called(torch.nn.Module):
    """An operation as a module: its arguments are parameters and buffers."""

    def __init__(self, twin, inputs):
        super().__init__()
        self.twin, self.options = twin.name, {}
        for name, x in inputs.tensors.items():
            self.register_parameter(name, torch.nn.Parameter(x))
        for name, x in inputs.options.items():
            if torch.is_tensor(x):
                self.register_buffer(name, x)
            else:
                self.options[name] = x

    def forward(self):
        held = dict(self.named_parameters()) | dict(self.named_buffers())
        return TWINS[self.twin].kernel(**held, **self.options)


@on_tensors
@each_twin
def test_as_a_module_it_is_copied_pickled_and_called_functionally(twin, backend, device):
    inputs = prepared(twin, smallest(twin), device)
    module = Called(twin, inputs)
    other = copy.deepcopy(module)
    with launch.backend(backend), torch.no_grad():
        expected = dict(enumerate(as_tuple(module())))
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        for x in (*other.parameters(), *other.buffers()):
            x.zero_()
        for again in (
            copy.deepcopy(module)(),
            pickle.loads(pickle.dumps(module))(),
            torch.func.functional_call(other, state, ()),
        ):
            assert_same(dict(enumerate(as_tuple(again))), expected)


@each_twin
def test_threads_with_two_backends_do_not_disturb_one_another(twin, device):
    inputs = prepared(twin, smallest(twin), device)
    expected, found = {}, {}

    def work(backend, results):
        with launch.backend(backend):
            results[backend] = run(twin, twin.kernel, inputs)

    for backend in ("triton", "eager"):
        work(backend, expected)
    threads = [threading.Thread(target=work, args=(b, found)) for b in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for backend, results in expected.items():
        assert_same(found[backend], results)
