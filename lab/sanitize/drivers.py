"""What `gptwin sanitize file.py::kernel` runs: a person's own kernel, through a driver beside it.

A driver is a function without parameters, `drive_<kernel>` unless another is named. It makes
tensors on the CPU, launches the kernel as always, `kernel[grid](...)`, and returns the results: a
tensor, or a tuple, list or dict of tensors. What it returns may be written, and so may what it
makes empty or of one constant (`torch.empty`, `zeros`, `ones`, `full`); every other tensor is an
input. PyTorch's and NumPy's random numbers are seeded before each run.
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from triton.runtime.autotuner import Autotuner
from triton.runtime.errors import InterpreterError
from triton.runtime.jit import KernelInterface

from ...core.checks import refuse
from .storages import Storage, Storages

PREFIX = "drive_"


class DriverTarget:
    """A driver, with one configuration of the autotuned kernels that it launches.

    Parameters
    ----------
    module : module
        The person's file.
    driver : str
        The function's name.
    configuration : int
        Taken modulo the length of each autotuned kernel's list.

    Attributes
    ----------
    n_configurations : int
        The longest list of configurations that a run met.
    """

    def __init__(self, module: ModuleType, driver: str, configuration: int = 0) -> None:
        self.driver = getattr(module, driver)
        self.configuration = configuration
        self.n_configurations = 1
        self.name = f"{driver}()"

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Call the driver; see `Target`."""
        try:
            with self._configured():
                results = self.driver()
        except InterpreterError:
            raise  # the kernel raised, not the driver
        except Exception as error:
            own = self.driver.__code__.co_filename
            *_, frame = (f for f in traceback.extract_tb(error.__traceback__) if f.filename == own)
            raise RuntimeError(
                f"{self.driver.__name__} raised {error!r}, at {own}:{frame.lineno}"
            ) from error
        named = self._named(results)
        for name, value in named.items():
            if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
                what = getattr(value, "device", type(value).__name__)
                refuse(
                    f"{self.driver.__name__}()",
                    "to return tensors on the CPU",
                    f"{what} for {name}",
                    "no return statement, or a device of 'cuda': there is no GPU here",
                )
        return named

    def _named(self, results: Any) -> dict[str, Any]:
        if isinstance(results, dict):
            return {str(name): value for name, value in results.items()}
        if isinstance(results, (tuple, list)):
            return {str(i): value for i, value in enumerate(results)}
        return {"": results}

    def is_input(self, storage: Storage) -> bool:
        """Say whether memory was made with data of its own; see `Target`."""
        return storage.holds_data

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Allow what is returned."""
        return list(results.values())

    @contextmanager
    def _configured(self) -> Iterator[None]:
        """Let autotuned kernels take one configuration: nothing can be timed here."""

        def run(tuner: Any, *args: Any, **options: Any) -> Any:
            self.n_configurations = max(self.n_configurations, len(tuner.configs))
            chosen = tuner.configs[self.configuration % len(tuner.configs)]
            self.name = f"{self.driver.__name__}(), {chosen}"
            return tuner.fn.run(*args, **options, **chosen.all_kwargs())

        before = Autotuner.run
        Autotuner.run = run
        try:
            yield
        finally:
            Autotuner.run = before


def load(path: str) -> ModuleType:
    """Import a person's file.

    Parameters
    ----------
    path : str

    Returns
    -------
    module

    Raises
    ------
    ValueError
        If there is no such file.
    RuntimeError
        If it cannot be imported.
    """
    file = Path(path).resolve()
    if not file.is_file() or file.suffix != ".py":
        refuse("target", "a Python file that exists, as in file.py::kernel", path)
    name = f"sanitized_{file.stem}"  # keep a person's random.py from being imported by others
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))  # so that it finds the files beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RuntimeError(f"{path}: importing it raised {error!r}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def find_drivers(module: ModuleType, path: str, kernel: str, driver: str | None) -> list[str]:
    """Choose the drivers to run.

    Parameters
    ----------
    module : module
        The file.
    path : str
        As it was typed.
    kernel : str
        The kernel that is meant; "" for all that have a driver.
    driver : str, optional
        The driver's name, if it is not `drive_<kernel>`.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If the kernel or its driver is not there.
    """
    functions = [name for name, value in vars(module).items() if callable(value)]
    # a launcher, perhaps under @triton.autotune
    kernels = [name for name, value in vars(module).items() if isinstance(value, KernelInterface)]
    known = [name for name in functions if name.startswith(PREFIX)]
    if kernel and kernel not in kernels:
        refuse("target", f"a kernel of {path} ({', '.join(kernels)})", repr(kernel))
    wanted = driver or (PREFIX + kernel if kernel else "")
    if not wanted and known:
        return known
    if wanted not in functions:
        refuse(
            "driver",
            f"a function {wanted or PREFIX + '<kernel>'}() in {path}, which makes tensors, "
            "launches the kernel and returns the results",
            f"only {', '.join(known)}" if known else "none",
        )
    return [wanted]
