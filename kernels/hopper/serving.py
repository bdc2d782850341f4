"""When these kernels run: never, unless asked for; then where they can.

GPTWIN_HOPPER=1 asks for them, on a GPU of compute capability 9.0. They are switched off otherwise,
since no GPU has run them. The same variable makes `gptwin inspect` and `gptwin predict` compile
them for sm_90.
"""

import os
from collections.abc import Callable
from typing import Any

import torch

from ...core.checks import refuse
from ..common._triton import architecture
from ..common.launch import INTERPRETED, door

VARIABLE = "GPTWIN_HOPPER"
D_HEADS = (64, 128)
DTYPES = (torch.float16, torch.bfloat16)
# TMA wants the start of every row at a multiple of so many bytes.
ALIGNMENT = 16
LONGEST = 2**30  # positions are added, in 32 bits; so are places among all heads' queries
CANNOT = "they run on a GPU of capability 9.0, and not under batch_invariant"
# Who wants to hear why a call is not served, or "" if it is (answers.py).
listeners: list[Callable[[str], None]] = []


def asked_for() -> bool:
    """Say whether `GPTWIN_HOPPER` asks for these kernels.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If it is neither 1 nor 0 nor empty.
    """
    said = os.environ.get(VARIABLE, "")
    if said not in ("", "0", "1"):
        refuse(VARIABLE, "1, 0 or nothing", repr(said))
    return said == "1"


def can_run(x: torch.Tensor) -> bool:
    """Say whether a tensor is where Gluon's kernels for Hopper run, or are compiled.

    Parameters
    ----------
    x : torch.Tensor

    Returns
    -------
    bool
        False under `batch_invariant`, where a row has the bits that decoding gives it, too.
    """
    asked = door()
    if INTERPRETED or asked.tracing or asked.calls_only or asked.batch_invariant:
        return False
    if asked.compile_only:
        return architecture() == "sm_90"
    on_nvidia = x.is_cuda and torch.version.hip is None
    return on_nvidia and torch.cuda.get_device_capability(x.device) == (9, 0)


def serves(
    query: torch.Tensor, key: torch.Tensor, *others: torch.Tensor, masks: Any, dropout: float
) -> bool:
    """Say whether these kernels are asked for, and serve a call.

    Parameters
    ----------
    query, key, *others, masks, dropout
        As of `why_not`.

    Returns
    -------
    bool
    """
    if not asked_for():
        return False
    why = why_not(query, key, *others, masks=masks, dropout=dropout) if can_run(query) else CANNOT
    for listen in listeners:
        listen(why)
    return not why


def why_not(
    query: torch.Tensor, key: torch.Tensor, *others: torch.Tensor, masks: Any, dropout: float
) -> str:
    """Say why these kernels do not serve a call; nothing if they do.

    Parameters
    ----------
    query : torch.Tensor [batch, head, query, d_head]
    key : torch.Tensor [batch, kv_head, key, d_head]
    *others : torch.Tensor
        What else TMA reads or writes, of either shape.
    masks : Masks
        Of kernels/attention/attention_tiles.py.
    dropout : float

    Returns
    -------
    str
    """
    n_query, n_key, d_head = query.shape[2], key.shape[2], query.shape[3]
    if query.dtype not in DTYPES:
        return f"{query.dtype}: a warpgroup multiplies float16 and bfloat16"
    if d_head not in D_HEADS:
        return f"d_head {d_head}: tiles are made for {' and '.join(map(str, D_HEADS))}"
    if any(mask is not None for mask in masks[1:]):
        return "a window, padding or documents: the causal mask alone is known"
    if dropout > 0:
        return "dropout: no registers are left to draw it"
    if not (query.numel() and key.numel()):
        return "an empty tensor: TMA describes none"
    if masks.causal and n_query > n_key:
        return f"causal, and {n_query} queries of {n_key} keys: some see nothing"
    if max(query.numel() // d_head, n_key) > LONGEST:
        return f"more than {LONGEST} queries or keys"
    return next((why for x in (query, key, *others) if (why := _why_not_copied(x))), "")


def _why_not_copied(x: torch.Tensor) -> str:
    """Say why TMA cannot copy a tensor."""
    steps = [stride * x.element_size() for stride in x.stride()[:-1]]
    if x.stride(-1) != 1 or not all(steps):
        return f"strides {x.stride()}: TMA wants a last axis of 1, and no axis repeated"
    if any(step % ALIGNMENT for step in (*steps, x.data_ptr())):
        return f"strides {x.stride()} from {x.data_ptr():#x}: TMA wants multiples of 16 bytes"
    return ""
