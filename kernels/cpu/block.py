"""A decoder block on the CPU for one new token a row: straight down, with a shape on every line.

Mathematics: core/model/decoder_block.py. A small model's step takes less time in its products than
in what calls them, so that here nothing is looked up, checked or passed on that is the same in
every step. `bind_block`'s computes the same for any number of tokens, on any backend.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ...core.model.presets import GPTConfig
from ..attention.sdpa import masked_attention
from ..model.decoder_block import Parts
from ..model.kv_cache import KVCache
from .mlp import gelu_in_place


class StraightBlock:
    """One block of a model, bound to its layer of a cache.

    Parameters
    ----------
    parameters : sequence of (torch.Tensor or None)
        The twelve parameters, in the order of `decoder_block`.
    cache : KVCache
        Has begun the position that a call computes.
    layer : int
        Whose part of the cache.
    config : GPTConfig
        The model's.
    parts : Parts
        Not looked up here, but written out.
    """

    def __init__(
        self, parameters: Sequence[Any], cache: KVCache, layer: int, config: GPTConfig, parts: Parts
    ) -> None:
        self.weights = tuple(zip(parameters[::2], parameters[1::2], strict=True))
        self.cache, self.kept = cache, cache.kept[layer]  # [2, batch, head, capacity, d_head]
        self.slots = self.kept.split(1, dim=3)  # [2, batch, head, 1, d_head] for each position
        self.window = config.window(layer)
        self.pre, self.n_head, self.eps = config.norm == "pre", config.n_head, config.eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Take the stream through the block.

        Parameters
        ----------
        x : torch.Tensor [batch, 1, d_model]
            Left as it is.

        Returns
        -------
        torch.Tensor [batch, 1, d_model]
        """
        x = x[:, 0]  # [batch, 1, d_model] -> [batch, d_model]
        ln_1, qkv, heads_proj, ln_2, fc, mlp_proj = self.weights
        if self.pre:
            heads = self._attend(_product(self._norm(x, ln_1), qkv))
            x = _product(heads, heads_proj).add_(x)
            hidden = gelu_in_place(_product(self._norm(x, ln_2), fc))  # [batch, d_mlp]
            x = _product(hidden, mlp_proj).add_(x)
        else:
            heads = self._attend(_product(x, qkv))
            x = self._norm(_product(heads, heads_proj).add_(x), ln_1)
            hidden = gelu_in_place(_product(x, fc))
            x = self._norm(_product(hidden, mlp_proj).add_(x), ln_2)
        return x[:, None]

    def _norm(self, x: torch.Tensor, weights: tuple[Any, Any]) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], *weights, self.eps)

    def _attend(self, qkv: torch.Tensor) -> torch.Tensor:
        """Write the position's keys and values, and attend to all: [batch, 3 * d_attention]."""
        cache, batch = self.cache, len(qkv)
        new = qkv.view(batch, 3, self.n_head, 1, -1).transpose(0, 1)  # [3, batch, head, 1, d_head]
        self.slots[cache.length - 1].copy_(new[1:])
        keys, values = self.kept.narrow(3, 0, cache.length).unbind()
        output = masked_attention(
            new[0], keys, values, window=self.window, key_start=cache.key_start
        )  # [batch, head, 1, d_head]
        return output.reshape(batch, -1)


def _product(x: torch.Tensor, weights: tuple[Any, Any]) -> torch.Tensor:
    weight, bias = weights
    return x @ weight if bias is None else torch.addmm(bias, x, weight)
