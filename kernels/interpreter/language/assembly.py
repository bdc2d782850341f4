"""Inline assembly: nobody assembles here, but a few registers can be answered for."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from triton.runtime import interpreter as upstream

from ..common.patches import replaces

# What `tl.extra.cuda.smid` and `globaltimer` read: programs run one after another on one processor.
_REGISTERS: dict[str, Callable[[], int]] = {
    "%smid": lambda: 0,
    "%globaltimer": time.time_ns,
    "%clock64": time.perf_counter_ns,
}


class _Call:
    """The results of assembly, as the language asks for them."""

    def __init__(self, results: list[Any]) -> None:
        self._results = results

    def get_result(self, i: int) -> Any:
        return self._results[i]


@replaces("InterpreterBuilder.create_inline_asm")
def _assembly(self, code, constraints, operands, dtypes, is_pure, pack):
    for register, read in _REGISTERS.items():
        if register in code and not operands:
            dtype = dtypes[0].scalar
            value = np.array([read()]).astype(upstream._get_np_dtype(dtype))
            return _Call([upstream.TensorHandle(value, dtype)])
    raise NotImplementedError(
        f"tl.inline_asm_elementwise: expected operations of the language, got assembly, which "
        f"runs on a GPU alone: {' '.join(code.split())[:60]!r}"
    )
