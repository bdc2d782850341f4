"""The matrix products of a piece of work, alone: the floor under its time.

A dispatch mode sees every product that PyTorch runs, backward ones too, and notes its shapes and
strides. Played again in the same order on other numbers, they take what nothing that computes the
same products with PyTorch can go below. PyTorch's fused attention counts as the batched products
that it consists of: two forward, five backward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = (
    *(aten.mm.default, aten.mm.out, aten.addmm.default, aten.addmm_.default, aten.addmm.out),
    *(aten.bmm.default, aten.bmm.out, aten.baddbmm.default, aten.baddbmm_.default),
    aten.baddbmm.out,
)  # fmt: skip
FLASH = aten._scaled_dot_product_flash_attention_for_cpu.default
FLASH_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# (shape, stride) of both factors.
Key = tuple[tuple[Any, Any], tuple[Any, Any]]


class Recording(TorchDispatchMode):
    """Note the products that run while the mode is on.

    A mode sees its own thread alone. PyTorch is asked to use one meanwhile, and so does all that
    asks how many there are.

    Attributes
    ----------
    products : list of Key
        In their order.
    flops : int
        2 for each multiplication and addition.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Key] = []
        self.flops = 0

    def __enter__(self) -> Any:
        """Begin to note."""
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        """Stop."""
        super().__exit__(*raised)
        torch.set_num_threads(self.threads)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Note a product, then run it."""
        if function in PRODUCTS:
            self._note(*args[-2:])
        elif function in (FLASH, FLASH_BACKWARD):
            query, key, value = args[:3] if function == FLASH else args[1:4]
            weights = torch.empty(*query.shape[:3], key.shape[2], device="meta")
            self._note_batched(query, key.mT)  # weights; backward again
            self._note_batched(weights, value)  # backward with the transpose: d_value
            if function == FLASH_BACKWARD:
                output = torch.empty_like(query, device="meta")
                self._note_batched(output, value.mT)  # d_weights
                self._note_batched(weights.mT, query)  # d_key
                self._note_batched(weights, key)  # d_query
        return function(*args, **(kwargs or {}))

    def _note(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.products.append(((tuple(a.shape), a.stride()), (tuple(b.shape), b.stride())))
        self.flops += 2 * a.numel() * b.shape[-1]

    def _note_batched(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Note a product of [batch, head, ...], as contiguous factors of [batch * head, ...]."""
        self._note(*(torch.empty(x.shape, device="meta").flatten(0, 1) for x in (a, b)))


def replay(products: list[Key]) -> Callable[[], None]:
    """Make a call that runs products, and nothing else.

    Parameters
    ----------
    products : list of Key

    Returns
    -------
    callable
    """
    factors = {}
    for key in dict.fromkeys(x for pair in products for x in pair):
        shape, stride = key
        factors[key] = torch.empty_strided(shape, stride).normal_()
    pairs = [(factors[a], factors[b]) for a, b in products]

    def run() -> None:
        with torch.no_grad():
            for a, b in pairs:
                torch.matmul(a, b)

    return run
