"""What `gptwin sanitize file.py::kernel` runs: a person's own kernel, through a driver beside it.

A driver is a function without parameters, `drive_<kernel>` unless another is named. It makes
tensors, launches the kernel as always, `kernel[grid](...)`, and returns the results: a tensor, or a
tuple, list or dict of tensors. "cuda" means the CPU. What it returns may be written, and so may
what is empty or of one constant (`torch.empty`, `zeros`, `ones`, `full`), and what a function that
the driver calls has made for itself; every other tensor is an input. PyTorch's and NumPy's random
numbers are seeded.
"""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from triton.runtime.errors import InterpreterError
from triton.runtime.jit import KernelInterface

from ...core.checks import refuse
from ..pretend.frames import program_frames
from ..pretend.gpu import pretend_gpu
from .sanitize import TargetError
from .storages import Storage, Storages

PREFIX = "drive_"


class DriverTarget:
    """A driver of a person's own.

    Parameters
    ----------
    module : module
        The person's file.
    driver : str
        The function's name.
    """

    def __init__(self, module: ModuleType, driver: str) -> None:
        self.driver = getattr(module, driver)
        self.name = f"{driver}()"
        self._are_inputs: dict[int, bool] = {}

    def run(self, storages: Storages) -> dict[str, torch.Tensor]:
        """Call the driver; see `Target`."""
        name = self.driver.__name__
        try:
            with pretend_gpu():
                results = self.driver()
        except InterpreterError:
            raise  # the kernel raised, not the driver
        except Exception as error:
            own = self.driver.__code__.co_filename
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
            where = f", at {own}:{frames[-1].lineno}" if frames else ""
            raise TargetError(f"{name} raised {error!r}{where}") from error
        named = self.named(results)
        for result, value in named.items():
            if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
                what = getattr(value, "device", type(value).__name__)
                raise TargetError(
                    f"{name}(): expected it to return tensors, got {what}"
                    f"{' for ' * bool(result)}{result} (likely cause: no return statement)"
                )
        return named

    def named(self, results: Any) -> dict[str, Any]:
        """Name what a driver returned: by its keys, or its places."""
        if isinstance(results, dict):
            return {str(name): value for name, value in results.items()}
        if isinstance(results, (tuple, list)):
            return {str(i): value for i, value in enumerate(results)}
        return {"": results}

    def is_input(self, storage: Storage) -> bool:
        """Say whether memory holds data that the driver can see; see `Target`."""
        if not storage.holds_data:
            return False
        if storage.number not in self._are_inputs:
            self._are_inputs[storage.number] = self._sees(storage)
        return self._are_inputs[storage.number]

    def _sees(self, storage: Storage) -> bool:
        """Say whether the driver made the memory or has a name for it.

        A function of the driver's file that is given no tensors is part of the driver. What other
        functions have made, and the driver has no name for, is their own.
        """
        frames = [frame for frame, _ in program_frames()][::-1]
        codes = [frame.f_code for frame in frames]
        if self.driver.__code__ not in codes:
            return True  # launched from elsewhere, by a thread perhaps
        frames = frames[codes.index(self.driver.__code__) :]
        drivers = [frames[0]]
        for frame in frames[1:]:
            own = frame.f_code.co_filename == self.driver.__code__.co_filename
            if not own or _takes_tensors(frame):
                break
            drivers.append(frame)
        if storage.made_by in {None, *(frame.f_code for frame in drivers)}:
            return True
        named = tree_leaves([list(frame.f_locals.values()) for frame in drivers])
        return storage.start in {t.untyped_storage().data_ptr() for t in named if _is_tensor(t)}

    def may_update(self, results: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Allow what is returned."""
        return list(results.values())


def _takes_tensors(frame: FrameType) -> bool:
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return any(map(_is_tensor, tree_leaves([frame.f_locals.get(name) for name in names])))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def is_file(name: str) -> bool:
    """Say whether a name means kernels of a file: file.py, or file.py::kernel.

    Parameters
    ----------
    name : str

    Returns
    -------
    bool
    """
    path, colons, _ = name.partition("::")
    return bool(colons) or path.endswith(".py")


def load(path: str, *, compiled: bool = False) -> ModuleType:
    """Import a person's file.

    Parameters
    ----------
    path : str
    compiled : bool
        Decorate its kernels to be compiled, not interpreted.

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
    if (file.parent / "__init__.py").is_file():
        return _load_from_package(path, file, compiled)
    name = f"sanitized_{file.stem}"  # keep a person's random.py from being imported by others
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))  # so that it finds the files beside it
    try:
        with pretend_gpu(compiled=compiled):
            spec.loader.exec_module(module)
    except Exception as error:
        raise RuntimeError(f"{path}: importing it raised {error!r}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def _load_from_package(path: str, file: Path, compiled: bool) -> ModuleType:
    """Import a module by its full name, so that it may import its neighbours relatively."""
    names, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        names, folder = [folder.name, *names], folder.parent
    sys.path.insert(0, str(folder))
    try:
        with pretend_gpu(compiled=compiled):
            return importlib.import_module(".".join(names))
    except Exception as error:
        raise RuntimeError(f"{path}: importing it raised {error!r}") from error
    finally:
        sys.path.remove(str(folder))


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
