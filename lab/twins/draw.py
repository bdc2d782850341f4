"""Where the tensors of a case come from, and how they lie in memory."""

from typing import Any

import numpy as np
import torch

from .twin import Inputs

LAYOUTS = ("contiguous", "transposed", "every_other", "row_pitch")
COTANGENT_LAYOUTS = (*LAYOUTS, "expanded")


class RandomArrays:
    """Draw float64 NumPy arrays from a seed.

    Parameters
    ----------
    seed : int
        The case's seed; equal seeds draw equal arrays.
    """

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> np.ndarray:
        """Return floats from N(mean, std²); see `Draw`."""
        return self.generator.normal(mean, std, size=shape)

    def sparse_minus_inf(self, x: np.ndarray, share: float) -> np.ndarray:
        """Return `x` with about this share of its elements at −inf; see `Draw`."""
        return np.where(self.generator.random(x.shape) < share, -np.inf, x)

    def mask(self, *shape: int, share: float) -> np.ndarray:
        """Return bools, about this share of them True; see `Draw`."""
        return self.generator.random(shape) < share

    def integers(self, *shape: int, below: int) -> np.ndarray:
        """Return int64 from 0 to `below` − 1; see `Draw`."""
        return self.generator.integers(below, size=shape)

    def jitter(self, x: np.ndarray, relative: float) -> np.ndarray:
        """Return `x` with every element moved up or down by this share of itself."""
        return x * (1 + relative * self.generator.choice([-1.0, 1.0], x.shape))


class ShapesAlone:
    """Make tensors on PyTorch's meta device: shapes and dtypes without memory, for compilation.

    Parameters
    ----------
    dtype : torch.dtype
        Of the floats.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        """Return a float tensor of this shape; see `Draw`."""
        return torch.empty(shape, dtype=self.dtype, device="meta")

    def sparse_minus_inf(self, x: torch.Tensor, share: float) -> torch.Tensor:
        """Return `x`; see `Draw`."""
        return x

    def mask(self, *shape: int, share: float) -> torch.Tensor:
        """Return a bool tensor of this shape; see `Draw`."""
        return torch.empty(shape, dtype=torch.bool, device="meta")

    def integers(self, *shape: int, below: int) -> torch.Tensor:
        """Return an int64 tensor of this shape; see `Draw`."""
        return torch.empty(shape, dtype=torch.int64, device="meta")


def with_nonfinite(inputs: Inputs, argument: str, index: list[int], value: str) -> Inputs:
    """Replace one number of one argument by "nan", "inf" or "-inf"; see lab/verify/nonfinite.py."""

    def replaced(arguments: dict[str, Any]) -> dict[str, Any]:
        if argument not in arguments:
            return arguments
        array = np.array(arguments[argument])
        array[tuple(index)] = float(value)
        return arguments | {argument: array}

    return Inputs(replaced(inputs.tensors), replaced(inputs.options))


def lay_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """Return the same values in memory of another shape, to catch a kernel that assumes strides.

    The layouts of a contiguous tensor are "contiguous"; "transposed" (the last two axes swapped in
    memory); "every_other" (last stride 2, odd storage offset); "row_pitch" (rows longer in memory
    than they are); "expanded" (the first axis repeats one slice with stride 0: this one changes the
    values).
    """
    if tensor.ndim == 0 or tensor.numel() == 0 or layout == "contiguous":
        return tensor
    if layout == "expanded":
        return tensor[:1].expand(tensor.shape)
    if layout == "transposed" and tensor.ndim >= 2:
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    step = 2 if layout == "every_other" else 1
    width = tensor.shape[-1]
    # NaN stands between the elements, so that a read beside the view poisons the result.
    memory = torch.full((*tensor.shape[:-1], width * step + 3), torch.nan).to(tensor)
    view = memory[..., 1 : 1 + width * step : step]
    return view.copy_(tensor)


def to_torch(
    array: Any, dtype: torch.dtype, device: str, layout: str = "contiguous"
) -> torch.Tensor:
    """Quantise a float array to `dtype` and lay it out; a bool or integer array keeps its dtype."""
    tensor = torch.from_numpy(np.array(array, order="C"))  # It copies; a scalar stays a scalar.
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return lay_out(tensor.to(device), layout)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Read a tensor's values as float64 (bool and integer tensors keep their dtype)."""
    values = tensor.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def rounded_among(saved: Any, result: np.ndarray, dtype: torch.dtype) -> Any:
    """Round a result to a dtype where it stands among what a forward pass saved.

    Parameters
    ----------
    saved : tuple, or anything
        What a reference's forward pass returned for its backward pass.
    result : numpy.ndarray
        Of that forward pass.
    dtype : torch.dtype

    Returns
    -------
    Any
        As `saved`.
    """
    if isinstance(saved, tuple):
        return tuple(rounded_among(part, result, dtype) for part in saved)
    is_result = isinstance(saved, np.ndarray) and np.shares_memory(saved, result)
    return to_numpy(torch.from_numpy(saved).to(dtype)) if is_result else saved
