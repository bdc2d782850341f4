"""Attention by others: PyTorch's SDPA backends by name, FlexAttention, flash-attn, FlashInfer."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...compiling import under_compile
from ...inputs import Arguments, Operation
from ...timing import Skipped

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
ON_A_GPU_ALONE = ("cuDNN", "efficient")
# The math backend holds all scores: more than these would fill the memory and take minutes.
MOST_SCORES = 2**31


def expect_plain(arguments: Arguments, *allowed: str) -> None:
    """Raise `Skipped` if the arguments have a mask, or dropout, that a provider has not."""
    for name in ("window", "key_start", "cu_seqlens"):
        if name not in allowed and arguments.options.get(name) is not None:
            raise Skipped(f"takes no {name}")
    if arguments.options.get("dropout"):
        raise Skipped("drops other weights")


def sdpa(name: str, arguments: Arguments, compiler: str) -> Operation:
    """Return scaled_dot_product_attention with one backend alone.

    Parameters
    ----------
    name : str
        Of BACKENDS.
    arguments : Arguments
    compiler : str
        Not used.
    """
    expect_plain(arguments)
    query, key = arguments.leaves["query"], arguments.leaves["key"]
    grouped = query.shape[1] != key.shape[1]
    if query.device.type == "cpu" and name in ON_A_GPU_ALONE:
        raise Skipped("PyTorch has it on a GPU alone")
    if name == "math" and query.numel() // query.shape[-1] * key.shape[2] > MOST_SCORES:
        raise Skipped("its scores would fill the memory")

    def operation(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        causal: bool = False,
        scale: float | None = None,
    ) -> torch.Tensor:
        with sdpa_kernel(BACKENDS[name]):
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped
            )

    return operation


def flex_attention(arguments: Arguments, compiler: str) -> Operation:
    """Return FlexAttention, compiled, with the masks as a block mask made beforehand."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    expect_plain(arguments, "window", "key_start", "cu_seqlens")
    options = arguments.options
    if arguments.has_backward and arguments.leaves["query"].device.type == "cpu":
        raise Skipped("on a CPU it has no backward pass")
    query, key = arguments.leaves["query"], arguments.leaves["key"]
    n_batch = query.shape[0] if options.get("key_start") is not None else None
    mask = _mask(options, key.shape[2] - query.shape[2], query.shape[2])
    sizes = (n_batch, None, query.shape[2], key.shape[2])
    blocks = create_block_mask(mask, *sizes, device=query.device.type) if mask else None
    grouped = query.shape[1] != key.shape[1]
    run = flex
    if compiler == "inductor":  # otherwise it would hold all scores; a dry run's are few
        run = under_compile(flex, compiler)

    def operation(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> Any:
        return run(
            query, key, value, block_mask=blocks, scale=options.get("scale"), enable_gqa=grouped
        )

    return operation


def _mask(options: dict[str, Any], offset: int, n_query: int) -> Callable[..., Any] | None:
    """Return FlexAttention's form of our masks; None if every query sees all."""
    window, start, bounds = (options.get(n) for n in ("window", "key_start", "cu_seqlens"))
    causal = options.get("causal", False)
    document = None
    if bounds is not None:
        index = torch.arange(n_query, device=bounds.device)
        document = torch.searchsorted(bounds, index.to(bounds.dtype), right=True)
    if not causal and start is None and document is None:
        return None

    def sees(b: Any, h: Any, q: Any, k: Any) -> Any:
        seen = k >= 0
        if causal:
            seen = seen & (k <= q + offset)
        if window is not None:
            seen = seen & (k > q + offset - window)
        if start is not None:
            seen = seen & (k >= start[b])
        if document is not None:
            seen = seen & (document[q] == document[k])
        return seen

    return sees


def flash_attention(arguments: Arguments, compiler: str) -> Operation:
    """Return the package flash-attn (FlashAttention-2)."""
    expect_plain(arguments, "window")
    library = importlib.import_module("flash_attn")

    def operation(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        causal = options.get("causal", False)
        return _in_its_layout(library.flash_attn_func, query, key, value, options, causal=causal)

    return operation


def flash_attention_decode(arguments: Arguments, compiler: str) -> Operation:
    """Return flash-attn's attention to a KV cache."""
    expect_plain(arguments, "window")
    library = importlib.import_module("flash_attn")

    def operation(
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        lengths: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        return _in_its_layout(
            library.flash_attn_with_kvcache, query, key_cache, value_cache, options,
            cache_seqlens=lengths.int(), causal=True,
        )  # fmt: skip

    return operation


def sdpa_decode(arguments: Arguments, compiler: str) -> Operation:
    """Return scaled_dot_product_attention over a KV cache, with a mask for its lengths."""
    expect_plain(arguments)
    query, key = arguments.leaves["query"], arguments.leaves["key_cache"]
    n_query, grouped = query.shape[2], query.shape[1] != key.shape[1]
    keys = torch.arange(key.shape[2], device=query.device)
    new = torch.arange(n_query, device=query.device)
    last = arguments.options["lengths"][:, None] - n_query + new  # [batch, query]
    seen = (keys <= last[..., None])[:, None]  # [batch, 1, query, key]

    def operation(
        query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        return functional.scaled_dot_product_attention(
            query, key_cache, value_cache, attn_mask=seen, scale=options.get("scale"),
            enable_gqa=grouped,
        )  # fmt: skip

    return operation


def flashinfer_decode(arguments: Arguments, compiler: str) -> Operation:
    """Return FlashInfer's decode attention for one sequence after another's full cache."""
    expect_plain(arguments)
    library = importlib.import_module("flashinfer")
    query, lengths = arguments.leaves["query"], arguments.options["lengths"]
    if query.shape[0] != 1 or query.shape[2] != 1:
        raise Skipped("its decode without pages takes one query of one sequence")
    length = int(lengths[0])

    def operation(
        query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        output = library.single_decode_with_kv_cache(
            query[0, :, 0], key_cache[0, :, :length], value_cache[0, :, :length],
            kv_layout="HND", sm_scale=options.get("scale"),
        )  # fmt: skip
        return output[None, :, None]  # [head, d] -> [batch, head, query, d]

    return operation


def _in_its_layout(
    function: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    options: dict[str, Any],
    **more: Any,
) -> torch.Tensor:
    """Call one of flash-attn's functions, which have time before heads."""
    window = options.get("window")
    output = function(
        *(x.transpose(1, 2) for x in (query, key, value)),
        softmax_scale=options.get("scale"),
        window_size=(-1, -1) if window is None else (window - 1, 0),
        **more,
    )
    return output.transpose(1, 2)


def linear_and_sdpa(is_compiled: bool, arguments: Arguments, compiler: str) -> Operation:
    """Return norm, linear, split and SDPA, as a plain model writes qkv_attention.

    Parameters
    ----------
    is_compiled : bool
    arguments : Arguments
    compiler : str
        Of torch.compile.
    """
    expect_plain(arguments)
    n_head = arguments.options["n_head"]
    n_kv_head = arguments.options.get("n_kv_head") or n_head

    def operation(x: torch.Tensor, w_qkv: torch.Tensor, **more: Any) -> torch.Tensor:
        if more.get("norm_weight") is not None:
            norm = more["norm_weight"], more["norm_bias"]
            x = functional.layer_norm(x, (x.shape[-1],), *norm, more.get("eps", 1e-5))
        packed = functional.linear(x, w_qkv.T, more.get("b_qkv"))
        d_head = packed.shape[-1] // (n_head + 2 * n_kv_head)
        parts = packed.split([n_head * d_head, n_kv_head * d_head, n_kv_head * d_head], dim=-1)
        query, key, value = (part.unflatten(-1, (-1, d_head)).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(
            query, key, value, is_causal=more.get("causal", True), enable_gqa=n_kv_head != n_head
        )
        return y.transpose(1, 2).flatten(2)  # [batch, head, time, d] -> [batch, time, head * d]

    return under_compile(operation, compiler) if is_compiled else operation
