"""Where a tensor is: memory is the CPU's, and remembers that a program calls it the GPU's.

Two modes see to that. `Arguments` translates the devices that a program names, and answers where
its tensors are. `Results` lets what is computed from a tensor on the GPU be on the GPU.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import _device
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
# These put nothing anywhere: the second reads the arguments of `module.to(...)`.
_ASK_FOR_DEVICES = (torch.device, torch._C._nn._parse_to)


def on_gpu(tensor: torch.Tensor) -> bool:
    """Say whether a program has put a tensor on "cuda".

    Parameters
    ----------
    tensor : torch.Tensor
    """
    with torch._C.DisableTorchFunction():
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            return False
        return hasattr(tensor.untyped_storage(), "_gptwin_on_gpu")


def put_on_gpu(value: Any) -> Any:
    """Let tensors, alone or in tuples, lists and dicts, lie on "cuda" from now on.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        The same.
    """
    with torch._C.DisableTorchFunction():
        for tensor in _tensors(value):
            tensor.untyped_storage()._gptwin_on_gpu = True  # type: ignore[attr-defined]
    return value


def _take_off_gpu(value: Any, given: Any) -> Any:
    """Let what was made on the CPU say so, though it was made like a tensor on the GPU."""
    with torch._C.DisableTorchFunction():
        starts = {tensor.untyped_storage().data_ptr() for tensor in _tensors(given)}
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in starts and hasattr(storage, "_gptwin_on_gpu"):
                del storage._gptwin_on_gpu
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(value):
        strided = isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
        if strided and leaf.device.type == "cpu":
            yield leaf


class Results(TorchDispatchMode):
    """What is computed from a tensor on the GPU is on the GPU; autograd's own operations, too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        result = func(*args, **kwargs)
        if any(map(on_gpu, given)):
            put_on_gpu(result)
        return result


class Arguments(TorchFunctionMode):
    """Translate the devices that a program names, and answer where its tensors are."""

    def __init__(self) -> None:
        super().__init__()
        tensor = torch.Tensor
        self._answers: dict[Any, Callable[..., Any]] = {
            tensor.is_cuda.__get__: on_gpu,  # type: ignore[attr-defined]
            tensor.is_cpu.__get__: lambda t: not on_gpu(t),  # type: ignore[attr-defined]
            tensor.device.__get__: _device_of,
            tensor.get_device: lambda t: 0 if on_gpu(t) else -1,
            tensor.cuda: lambda t, device=None, *rest, **options: _move(t, True),
            tensor.cpu: lambda t, *rest, **options: _move(t, False),
            tensor.to: _to,
            tensor.pin_memory: lambda t, *rest: t,
            tensor.is_pinned: lambda t, *rest: False,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        answer = self._answers.get(func)
        if answer is not None:
            return answer(*args, **kwargs)
        if func in _ASK_FOR_DEVICES:
            return func(*args, **kwargs)
        kwargs.pop("pin_memory", None)
        device = kwargs.get("device")
        if device is None and func in _device_constructors():
            device = _device.CURRENT_DEVICE  # torch.set_default_device, with torch.device(...)
        named = any(is_gpu(value) for value in args)
        if not named and not is_gpu(device) and type(device) is not int:
            result = func(*args, **kwargs)
            return result if device is None else _take_off_gpu(result, args)
        args = tuple(_CPU if is_gpu(value) else value for value in args)
        if device is not None:
            kwargs["device"] = _CPU
        return put_on_gpu(func(*args, **kwargs))

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what a function under this mode calls back, such as a backward pass.

        While the mode handles `loss.backward()`, it is off.
        """

        def call(*args: Any, **options: Any) -> Any:
            if self in _get_current_function_mode_stack():
                return function(*args, **options)
            with self:
                return function(*args, **options)

        return call


def is_gpu(device: Any) -> bool:
    """Say whether a device, or its name, is a GPU.

    Parameters
    ----------
    device : object
    """
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.partition(":")[0] == "cuda"


def _device_of(tensor: torch.Tensor) -> torch.device:
    with torch._C.DisableTorchFunction():
        real = tensor.device
    return GPU if real.type == "cpu" and on_gpu(tensor) else real


def _move(tensor: torch.Tensor, to_gpu: bool) -> torch.Tensor:
    if on_gpu(tensor) == to_gpu:
        return tensor
    return _copied(tensor, to_gpu)


def _copied(tensor: torch.Tensor, to_gpu: bool) -> torch.Tensor:
    copy = tensor.clone()
    return put_on_gpu(copy) if to_gpu else _take_off_gpu(copy, ())


def _to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Convert as PyTorch does, and copy if the tensor changes its place."""
    to_gpu = on_gpu(tensor)
    first = kwargs.get("device", args[0] if args else None)
    if isinstance(first, torch.Tensor):
        to_gpu = on_gpu(first)
    elif isinstance(first, (str, torch.device)) or type(first) is int:
        to_gpu = type(first) is int or is_gpu(first)
        if "device" in kwargs:
            kwargs = kwargs | {"device": _CPU if to_gpu else first}
        else:
            args = (_CPU if to_gpu else first, *args[1:])
    with torch._C.DisableTorchFunction():
        converted = torch.Tensor.to(tensor, *args, **kwargs)
    return _move(converted, to_gpu)
