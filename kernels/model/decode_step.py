"""Decoding steps, from one token a row to the next logits, with little else around the kernels.

    step = BoundStep(model, cache)          cache: a KVCache, filled by the prompts
    state, logits = step(tokens)            [batch] -> [batch, d_model], [batch, vocab]

Without a graph, what a small model's step costs beside its products is for a good part Python that
looks up the same parameters, options and kernels as the step before. `BoundStep` does it once.

`DecodeStep` is a step whose every shape and address stays: what a CUDA graph can hold. Decoding a
token launches dozens of small kernels, and on a GPU launching them takes longer than running them.
A graph is recorded once and replayed with one call, but it replays the addresses and the numbers
that it saw: so nothing of a step may lie in Python. Here the tokens come in one buffer, the logits
leave in another, and where the cache goes on is read from `lengths` on the device.

    step = DecodeStep(model, cache)         cache: a StaticKVCache, filled by the prompts
    state, logits = step(tokens)            overwritten by the next step

On a GPU the first call records the graph. Elsewhere, as in the tests, and where none is wanted, a
step is computed the same way without one. Rows that leave change the shapes: a new DecodeStep is
made for those that stay.
"""

from typing import Any

import torch

from ...core.attention.attention import default_scale
from ...core.checks import refuse
from ..attention.attention import attention_forward
from ..attention.attention_tiles import Masks
from ..attention.decode_attention import decode_attention, decode_attention_eager
from ..common.launch import door, runs_on_triton
from ..layers.embedding import embedding, embedding_eager
from .decoder_block import KERNELS, Parts
from .gpt import GPT
from .kv_cache import KVCache


class BoundStep:
    """A model's step, bound to its cache.

    Parameters
    ----------
    model : GPT
        In evaluation mode; its parameters stay as they are.
    cache : KVCache
        Holds the prompts. A position more of it is filled by each call.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model, self.cache = model, cache
        self.tables = (model.wte()[0], model.wpe()[0])
        on_triton = runs_on_triton("gpt", table=self.tables[0])
        self.parts = parts = KERNELS if on_triton else model.eager
        self.embed = embedding if on_triton else embedding_eager
        blocks: Any = model.h
        self.blocks = [
            parts.bind(block.parameters_in(model.dtype), cache, layer, model.config, parts)
            for layer, block in enumerate(blocks)
        ]
        self.head, self.dtype = model.output_matrix(), model.dtype

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a token of each row, and score the next.

        Parameters
        ----------
        tokens : torch.Tensor of int64 [batch]
            Drawn, so that nobody checks them.

        Returns
        -------
        state : torch.Tensor [batch, d_model]
            The hidden state that scores the next token.
        logits : torch.Tensor [batch, vocab]
        """
        x = self.embed(tokens[:, None], *self.tables, positions=self.cache.begin(1, None))
        x = x.to(self.dtype)  # [batch, 1, d_model]
        for block in self.blocks:
            x = block(x)
        state = self.model.final_norm(x, self.parts).view(len(tokens), -1)  # [batch, d_model]
        return state, self.parts.linear(state, self.head, None)


class StaticKVCache(KVCache):
    """A KV cache that, once the prompts are in it, grows by one position without asking Python.

    Takes and holds what `KVCache` does; how full it is, is the caller's to know, since looking
    would wait for the device.
    """

    def begin(self, n_new: int, key_start: torch.Tensor | None) -> torch.Tensor:
        """Make room for the prompts, and then for one position at a time; as in `KVCache`."""
        if self.length == 0:
            return super().begin(n_new, key_start)
        if n_new != 1:
            refuse("tokens", "one a row, once the prompts are in the cache", str(n_new))
        self.n_new = 0  # the prompts are in: what is new is looked up on the device now
        self.lengths += 1
        position = self.lengths - 1
        if self.key_start is not None:
            position = position - self.key_start
        return position[:, None].long()

    def _write(self, kept: torch.Tensor, new: torch.Tensor) -> None:
        """Write one position where `lengths` says, the same in every row; as in `KVCache`."""
        if self.n_new:
            super()._write(kept, new)
        else:
            kept.index_copy_(3, (self.lengths[:1] - 1).long(), new)

    def _attended(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        parts: Parts,
        window: int | None,
    ) -> torch.Tensor:
        """Attend to as many positions as `lengths` says; as in `KVCache`."""
        if self.n_new:
            return super()._attended(query, keys, values, parts, window)
        if door().batch_invariant:
            # The one query sees the document that ends where the cache does.
            end = self.lengths[:1]
            masks = Masks.of(1, window=window, key_start=self.key_start)
            masks = masks.holding(masks.key_start, torch.zeros_like(end), end)
            scale = default_scale(None, query.shape[-1])
            return attention_forward(query, keys, values, masks, scale=scale)[0]
        attention = decode_attention if parts is KERNELS else decode_attention_eager
        output, _ = attention(
            query, keys, values, self.lengths, window=window, key_start=self.key_start
        )
        return output


class DecodeStep:
    """The model's step from one token a row to the next logits.

    Parameters
    ----------
    model : GPT
        In evaluation mode; its parameters may change in place between steps, not move.
    cache : StaticKVCache
        Holds the prompts. A row more of it is filled by each call.
    record : bool
        Whether to record a graph, where there is a GPU.
    """

    def __init__(self, model: GPT, cache: StaticKVCache, *, record: bool = True) -> None:
        batch, device = len(cache.lengths), cache.kept.device
        self.model, self.cache = model, cache
        self.tokens = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        self.record = record and self.tokens.is_cuda
        self.graph: torch.cuda.CUDAGraph | None = None
        self.results: tuple[torch.Tensor, torch.Tensor] | None = None

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a token of each row, and score the next."""
        self.tokens.copy_(tokens[:, None])
        if not self.record:
            return self.compute()
        if self.graph is None:
            self._record()
        assert self.graph is not None and self.results is not None
        self.graph.replay()
        return self.results

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return state and logits of what lies in the buffer: what the graph holds."""
        state = self.model(self.tokens, cache=self.cache)[:, -1]
        return state, self.model.logits(state)

    def _record(self) -> None:
        """Record the graph, and leave the cache as it was."""
        before = self.cache.lengths.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # the first run compiles and tunes the kernels
            self.compute()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = self.compute()
        self.cache.lengths.copy_(before)
