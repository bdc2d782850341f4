"""Who does the work: gptwin's kernel, eager PyTorch, torch.compile, and what is known by operation.

A provider makes an operation with the twin's own signature for given arguments, or says why it
cannot: `ImportError` if it is not installed, `Skipped` if it is not made for such arguments.
"""

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ....kernels.attention.attention_tiles import Masks
from ....kernels.common import launch
from ....kernels.hopper import serving
from ...compiling import under_compile
from ...inputs import Arguments, Operation
from ...timing import Skipped
from ...training_step import checkout_hidden
from .peers_attention import (
    flash_attention,
    flash_attention_decode,
    flashinfer_decode,
    flex_attention,
    linear_and_sdpa,
    sdpa,
    sdpa_decode,
)
from .results import AS_ON_AMPERE, BATCH_INVARIANT, ON_HOPPER, OURS


@dataclasses.dataclass(frozen=True)
class Provider:
    """One way to compute an operation.

    Attributes
    ----------
    name : str
    make : callable
        `(arguments, compiler) -> operation`; the compiler is torch.compile's backend.
    yardstick : bool
        It computes something else, which others are measured by: no gate.
    compiles : bool
        Whether it compiles at first, for seconds: that is done ahead, side by side.
    sweeps : bool
        Whether it is timed at the sizes of a sweep too, where peers by name are what counts.
    """

    name: str
    make: Callable[[Arguments, str], Operation]
    yardstick: bool = False
    compiles: bool = False
    sweeps: bool = True


def ours(arguments: Arguments, compiler: str) -> Operation:
    """Return the kernel; a user's own without what watches it."""
    function = getattr(arguments.twin.kernel, "unwatched", arguments.twin.kernel)

    def kernel(**given: Any) -> Any:
        with launch.backend("triton"):
            return function(**given)

    return kernel


def invariant(arguments: Arguments, compiler: str) -> Operation:
    """Return the kernel under `batch_invariant`, whose cost is seen by comparison."""

    def kernel(**given: Any) -> Any:
        with launch.backend("triton"), launch.batch_invariant():
            return arguments.twin.kernel(**given)

    return kernel


def as_on_ampere(arguments: Arguments, compiler: str) -> Operation:
    """Return the kernel with the lists that driver.py asked for when this process began."""
    if os.environ.get("GPTWIN_ARCH") != "sm_80":
        raise Skipped("the lists of this architecture are chosen")
    return ours(arguments, compiler)


def on_hopper(arguments: Arguments, compiler: str) -> Operation:
    """Return the kernels in Gluon, which driver.py switched on when this process began."""
    if not serving.asked_for():
        raise Skipped(f"{serving.VARIABLE} is not set")
    query, key, value = (arguments.leaves[name] for name in ("query", "key", "value"))
    if not serving.can_run(query):
        raise Skipped("a GPU's of capability 9.0 alone")
    # Where they are asked for and can run, a size that they do not serve is no figure of theirs:
    # the plain kernel would be timed in their name.
    named = {name: arguments.options.get(name) for name in ("window", "key_start", "cu_seqlens")}
    masks = Masks.of(query.shape[2], causal=arguments.options.get("causal", False), **named)
    dropout = arguments.options.get("dropout", 0.0)
    if reason := serving.why_not(query, key, value, masks=masks, dropout=dropout):
        raise ValueError(f"{serving.VARIABLE}=1 was asked for, and they do not serve it: {reason}")
    return ours(arguments, compiler)


def eager(arguments: Arguments, compiler: str) -> Operation:
    """Return PyTorch's equivalent."""
    return arguments.twin.eager


def compiled(arguments: Arguments, compiler: str) -> Operation:
    """Return PyTorch's equivalent under torch.compile, for this size alone."""
    if arguments.twin.name == "sampling" or arguments.options.get("dropout"):
        raise Skipped("NumPy draws the eager twin's random bits, which torch.compile cannot trace")
    return under_compile(arguments.twin.eager, compiler)


def _of_liger(module: str, name: str) -> Any:
    """Import one of Liger's autograd functions."""
    with checkout_hidden():
        return getattr(importlib.import_module(f"liger_kernel.ops.{module}"), name)


def liger_softmax(arguments: Arguments, compiler: str) -> Operation:
    """Return Liger's softmax over rows without a mask."""
    options = arguments.options
    if options.get("causal") or options.get("key_mask") is not None or options.get("scale") != 1:
        raise Skipped("takes neither mask nor scale")
    function = _of_liger("softmax", "LigerSoftmaxFunction")
    return lambda x, **_: function.apply(x)


def liger_layer_norm(arguments: Arguments, compiler: str) -> Operation:
    """Return Liger's layer norm, after the addition in eager PyTorch where there is one."""
    function = _of_liger("layer_norm", "LigerLayerNormFunction")
    if arguments.leaves["x"].device.type == "cpu":
        raise Skipped("it calls CUDA's libdevice, which Triton's interpreter has not")

    def operation(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        eps: float,
    ) -> Any:
        summed = x if residual is None else x + residual
        y = function.apply(summed, weight, bias, eps)
        return y if residual is None else (y, summed)

    return operation


def liger_cross_entropy(arguments: Arguments, compiler: str) -> Operation:
    """Return Liger's fused linear cross-entropy; it has the loss alone."""
    function = _of_liger("fused_linear_cross_entropy", "LigerFusedLinearCrossEntropyFunction")

    def operation(
        hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, **options: Any
    ) -> Any:
        found = function.apply(
            hidden, weight.T, targets, None, None, options["ignore_index"], 0.0, 0.0,
            options["reduction"],
        )  # fmt: skip
        return found[0] if isinstance(found, tuple) else found

    return operation


def bare_matmuls(arguments: Arguments, compiler: str) -> Operation:
    """Return the product of hidden states and weight: backward is its two others."""
    return lambda hidden, weight, **_: hidden @ weight


def fused_adamw(arguments: Arguments, compiler: str) -> Operation:
    """Return PyTorch's fused AdamW on copies, as the entry's results are new tensors too.

    Copying is part of the time here, as writing new tensors is part of the kernel's.
    """
    options = arguments.options
    if options.get("max_norm") is not None or options.get("epsilon") != "pytorch":
        raise Skipped("clips no gradients")
    if next(iter(arguments.leaves.values())).dtype != torch.float32:
        raise Skipped("takes moments of the parameters' dtype alone")

    def operation(**given: Any) -> Any:
        count = sum(name.startswith("parameter") for name in given)
        kinds = ("parameter", "gradient", "first_moment", "second_moment")
        lists = [[given[f"{kind}_{i}"] for i in range(count)] for kind in kinds]
        new = [lists[i] if i == 1 else [x.clone() for x in lists[i]] for i in range(4)]
        for i, decay in enumerate(given["weight_decay"]):
            step = torch.tensor(float(given["step"]), device=new[0][i].device)
            torch.ops.aten._fused_adamw_(
                *([one[i]] for one in new), [], [step], lr=given["lr"],
                beta1=given["betas"][0], beta2=given["betas"][1], weight_decay=decay,
                eps=given["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip
        norm = torch.nn.utils.get_total_norm(lists[1])
        triples = zip(new[0], new[2], new[3], strict=True)
        return (norm, *(x for triple in triples for x in triple))

    return operation


def native_softmax(arguments: Arguments, compiler: str) -> Operation:
    """Return torch.softmax itself, for rows without a mask."""
    options = arguments.options
    if options.get("causal") or options.get("key_mask") is not None or options.get("scale") != 1:
        raise Skipped("takes neither mask nor scale")
    return lambda x, **_: functional.softmax(x, dim=-1)


def norm_and_linear(arguments: Arguments, compiler: str) -> Operation:
    """Return layer norm and PyTorch's linear, cuBLAS with its bias, and a view of the heads."""
    n_head = arguments.options["n_head"]
    n_heads = n_head + 2 * (arguments.options.get("n_kv_head") or n_head)

    def operation(x: torch.Tensor, w_qkv: torch.Tensor, **more: Any) -> torch.Tensor:
        if more.get("norm_weight") is not None:
            norm = more["norm_weight"], more["norm_bias"]
            x = functional.layer_norm(x, (x.shape[-1],), *norm, more.get("eps", 1e-5))
        packed = functional.linear(x, w_qkv.T, more.get("b_qkv"))
        return packed.unflatten(-1, (n_heads, -1)).permute(2, 0, 1, 3)

    return operation


def multinomial(arguments: Arguments, compiler: str) -> Operation:
    """Return softmax and PyTorch's own draw: other random numbers, so a yardstick."""
    options = arguments.options
    temperature = options.get("temperature", 1.0)
    if temperature == 0 or options.get("top_k") or options.get("top_p"):
        raise Skipped("draws from all tokens")

    def operation(logits: torch.Tensor, **_: Any) -> Any:
        probabilities = torch.softmax(logits.float() / temperature, dim=-1)
        tokens = torch.multinomial(probabilities, 1)
        return tokens[:, 0], probabilities.gather(1, tokens)[:, 0].log()

    return operation


COMMON = (
    Provider(OURS, ours, compiles=True),
    Provider("eager", eager, sweeps=False),
    Provider("torch.compile", compiled, compiles=True, sweeps=False),
)

# Of those whose tiles or pieces would follow the batch; the others' kernels are the same ones.
INVARIANT = Provider(BATCH_INVARIANT, invariant, compiles=True, sweeps=False)
# Of those whose lists of configurations differ by architecture.
AMPERE = Provider(AS_ON_AMPERE, as_on_ampere, compiles=True)

PEERS: dict[str, tuple[Provider, ...]] = {
    "attention": (
        INVARIANT,
        AMPERE,
        Provider(ON_HOPPER, on_hopper, compiles=True),
        *(
            Provider(f"SDPA {name}", functools.partial(sdpa, name))
            for name in ("flash", "cuDNN", "efficient", "math")
        ),
        Provider("FlexAttention", flex_attention, compiles=True),
        Provider("flash-attn", flash_attention),
    ),
    "decode_attention": (
        INVARIANT,
        Provider("flash-attn", flash_attention_decode),
        Provider("SDPA", sdpa_decode),
        Provider("FlashInfer", flashinfer_decode),
    ),
    "qkv_projection": (INVARIANT, Provider("layer norm + linear", norm_and_linear)),
    "linear": (INVARIANT, AMPERE),
    "sampling": (Provider("softmax + multinomial", multinomial, yardstick=True),),
    "qkv_attention": (
        Provider("linear + SDPA", functools.partial(linear_and_sdpa, False)),
        Provider(
            "linear + SDPA, compiled", functools.partial(linear_and_sdpa, True), compiles=True
        ),
    ),
    "softmax": (
        Provider("torch.softmax", native_softmax),
        Provider("Liger", liger_softmax, compiles=True),
    ),
    "layer_norm": (INVARIANT, AMPERE, Provider("Liger", liger_layer_norm, compiles=True)),
    "cross_entropy": (
        INVARIANT,
        AMPERE,
        Provider("Liger", liger_cross_entropy, compiles=True),
        Provider("bare matmuls", bare_matmuls, yardstick=True),
    ),
    "adamw": (Provider("torch fused", fused_adamw),),
}


def switches(only: tuple[str, ...]) -> dict[str, str]:
    """Return the environment's variables of a process that measures these providers alone.

    Parameters
    ----------
    only : tuple of str
        Names; empty for all.
    """
    chosen = {serving.VARIABLE: str(int(only == (ON_HOPPER,)))}
    return chosen | ({"GPTWIN_ARCH": "sm_80"} if only == (AS_ON_AMPERE,) else {})


def providers(operation: str) -> tuple[Provider, ...]:
    """Return everyone who computes an operation, gptwin first."""
    return COMMON + PEERS.get(operation, ())
