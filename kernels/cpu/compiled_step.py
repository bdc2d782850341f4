"""A decoding step on the CPU that a compiler has made: what `BoundStep` computes, in fewer passes.

    step = CompiledStep(model, cache, "inductor", ...)  cache: a KVCache, filled by the prompts
    state, tokens, log_probs = step(tokens, 7)          tokens [batch] -> those of step 7 [batch]

A small model's step is some two hundred operators on few numbers, the draw included, and calling
them takes a good part of its time. Compiled as one, what lies between two products is one loop, and
so is attention: a single query reads each key and each value once, which no product makes faster.

A product of few rows takes as long as its matrix takes to come. A small matrix is cut in two along
what is summed, so that each of two cores reads a half; the sum is taken by the loop that follows.

Compiled once for a model's shapes and reused whatever the batch, the cache's capacity and how full
it is. PyTorch looks at every argument before it runs what it has compiled, and there are a hundred:
here what decides is looked at once for each cache, and nothing in a step.
"""

import functools
import math
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from ...core.model.presets import GPTConfig
from ..attention.sdpa import seen_keys
from ..language.sampling_eager import Draw, draw_of, drawn_where_possible
from ..layers.embedding import embedding_eager
from ..model.decoder_block import EAGER, run_block
from ..model.gpt import GPT
from ..model.kv_cache import KVCache
from .mlp import gelu_formula

# Numbers in a matrix that is cut in two: 2 MB in float32, what a core's cache holds. At d_model 256
# a roll out then takes 0.94 of the time; with the matrices of 124M cut, too, one took 1.18 times as
# long.
SMALL = 2**19


class CompiledStep:
    """A model's step, bound to its cache; the first call compiles.

    Parameters
    ----------
    model : GPT
        On the CPU, in evaluation mode; its parameters stay as they are.
    cache : KVCache
        Holds the prompts, two or more: one would be compiled for itself. A position more of it is
        filled by each call.
    backend : str or callable
        Of `torch.compile`.
    rows : sequence of int
        Each sequence's number, as in `sampling`.
    temperature, seed
        As in `sampling`; a temperature above 0.
    """

    def __init__(
        self,
        model: GPT,
        cache: KVCache,
        backend: str | Callable[..., Any],
        *,
        rows: Sequence[int],
        temperature: float,
        seed: int,
    ) -> None:
        self.cache, self.called = cache, False
        self.draw = functools.partial(
            draw_of, tuple(rows), cache.kept.device, temperature=temperature, seed=seed
        )
        self.layers = cache.kept.unbind()  # [2, batch, head, capacity, d_head] each
        blocks: Any = model.h
        norm: list[Any] = [] if model.ln_f is None else [model.ln_f.weight, model.ln_f.bias]
        tables = (model.wte.weight, model.wpe.weight)
        decides = (
            *(model.config, model.dtype, tables[0].dtype, cache.key_start is None),
            *(temperature == 1, torch.get_num_threads(), torch.is_autocast_enabled("cpu")),
            torch.is_inference_mode_enabled(),
        )
        self.step = functools.partial(
            _compiled(backend, decides),
            config=model.config, key_start=cache.key_start, layers=self.layers, tables=tables,
            dtype=model.dtype, blocks=[block.parameters_in(model.dtype) for block in blocks],
            final_norm=[p if p is None else p.to(model.dtype) for p in norm],
            head=model.output_matrix(),
        )  # fmt: skip

    @torch.no_grad()
    def __call__(
        self, tokens: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Take a token of each row, and draw the next.

        Parameters
        ----------
        tokens : torch.Tensor of int64 [batch]
            Drawn, so that nobody checks them.
        step : int
            Of the tokens that are drawn, as in `sampling`.

        Returns
        -------
        state : torch.Tensor [batch, d_model]
            The hidden state that scores the next token.
        tokens, log_probs : torch.Tensor [batch]
            As from `sampling`.
        """
        self.cache.begin(1, None)
        index = self.cache.index.narrow(0, 0, self.cache.length)
        draw = self.draw(step=step)
        if not self.called:
            self._vary(tokens, index, draw)
        return self.step(tokens, index, draw)

    def _vary(self, tokens: torch.Tensor, index: torch.Tensor, draw: Draw) -> None:
        """Let what is compiled by the first call be for any batch, length and capacity."""
        self.called = True
        varying = [(tokens, 0), (index, 0), (draw.u_halves, 1)]
        varying += [(kept, dim) for kept in self.layers for dim in (1, 3)]
        if self.cache.key_start is not None:
            varying.append((self.cache.key_start, 0))
        for x, dim in varying:
            torch._dynamo.mark_dynamic(x, dim)


def has_cpp_compiler() -> bool:
    """Say whether Inductor finds what it compiles with for a CPU.

    Returns
    -------
    bool
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


@functools.cache
def _compiled(backend: str | Callable[..., Any], decides: Hashable) -> Callable[..., Any]:
    """Compile a step for those who agree in all that `decides`."""
    # What is compiled is kept with a function's code, and without guards the first would be all.
    code = _step.__code__.replace()
    own = types.FunctionType(code, _step.__globals__)
    unguarded: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    return torch.compile(own, fullgraph=True, backend=backend, options=unguarded)


def _step(
    tokens: torch.Tensor,
    index: torch.Tensor,
    draw: Draw,
    *,
    config: GPTConfig,
    key_start: torch.Tensor | None,
    layers: Sequence[torch.Tensor],
    tables: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
    blocks: Sequence[Sequence[Any]],
    final_norm: Sequence[Any],
    head: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute a step, from tokens [batch], and 0 to the newest position: index [length]."""
    position = index[-1:] if key_start is None else index[-1] - key_start  # [1 or batch]
    x = embedding_eager(tokens[:, None], *tables, positions=position[:, None]).to(dtype)
    for layer, (kept, parameters) in enumerate(zip(layers, blocks, strict=True)):
        attend = functools.partial(
            _attend, kept=kept, length=len(index), key_start=key_start,
            window=config.window(layer), n_head=config.n_head, eps=config.eps,
        )  # fmt: skip
        x = run_block(x, parameters, attend, parts=PARTS, norm=config.norm, eps=config.eps)
    if final_norm:
        x = PARTS.layer_norm(x, *final_norm, eps=config.eps)
    state = x[:, 0]  # [batch, 1, d_model] -> [batch, d_model]
    logits = _product(state, head)  # [batch, vocab]
    row_max = logits.amax(dim=1, keepdim=True).float()
    return state, *drawn_where_possible(logits, row_max, draw)


def _product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute what `linear` computes; where that is faster, as the sum of two products."""
    rows, d_in = x.reshape(-1, x.shape[-1]), len(weight)  # [..., d_in] -> [row, d_in]
    pieces = 2 if d_in % 2 == 0 and weight.numel() <= SMALL else 1
    summands = torch.bmm(
        rows.view(-1, pieces, d_in // pieces).transpose(0, 1),  # [piece, row, d_in / pieces]
        weight.view(pieces, d_in // pieces, -1),  # [piece, d_in / pieces, d_out]
    )
    y = summands.sum(0).view(*x.shape[:-1], -1)
    y = y if bias is None else y + bias
    return y if residual is None else y + residual


def _mlp(x: torch.Tensor, fc_weight: torch.Tensor, fc_bias: Any, *proj: Any) -> torch.Tensor:
    """Compute an MLP: `proj` is weight and bias, and a residual if there is one."""
    return _product(gelu_formula(_product(x, fc_weight, fc_bias)), *proj)


PARTS = EAGER._replace(linear=_product, mlp=_mlp)


def _attend(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    norm_bias: torch.Tensor | None,
    *,
    kept: torch.Tensor,
    length: int,
    key_start: torch.Tensor | None,
    window: int | None,
    n_head: int,
    eps: float,
    first: int = 0,
) -> torch.Tensor:
    """Do for one position what `KVCache.attend` does; `first` is 0."""
    if norm_weight is not None:
        x = PARTS.layer_norm(x, norm_weight, norm_bias, eps=eps)
    qkv = PARTS.linear(x, w_qkv, b_qkv)  # [batch, 1, 3 * d_attention]
    new = qkv.view(len(x), 3, n_head, -1).transpose(0, 1)[:, :, :, None]  # [3, batch, head, 1, ...]
    kept.narrow(3, length - 1, 1).copy_(new[1:])
    keys, values = kept.narrow(3, 0, length).unbind()  # [batch, head, length, d_head]

    precise = torch.promote_types(x.dtype, torch.float32)
    scores = (new[0].to(precise) * keys).sum(-1) / math.sqrt(keys.shape[-1])
    if key_start is not None or window is not None:
        seen = seen_keys(1, length, x.device, window=window, key_start=key_start)
        scores = scores.where(seen, -torch.inf)  # [1 or batch, 1, length]
    # Divided in the end, by a number a head: a softmax would divide each weight.
    weights = (scores - scores.amax(-1, keepdim=True)).exp()  # [batch, head, length]
    output = (weights[..., None] * values).sum(2) / weights.sum(-1, keepdim=True)
    return output.to(x.dtype).flatten(1)[:, None]  # [batch, 1, d_attention]
