"""The KV cache: each layer's keys and values, so that a new token costs one position, not all.

    kept   [n_layer, keys and values, batch, head, capacity, d_head]

All sequences of a batch grow together, one position a step, and end at the same place: shorter
prompts are padded on the left, and `key_start` says where each begins. Sequences that have ended
leave by `keep`. The first call fills the cache (prefill) and attends within itself; later ones
attend to the cache, on a GPU by kernels/attention/decode_attention.py, which cuts long caches into
pieces.

Under `batch_invariant` a position has the bits that a pass over the whole text gives it: it goes
through that pass's own kernels, `qkv_projection` and `attention`, however few positions there are.
"""

from typing import Any

import torch

from ...core.checks import expect_integers, expect_positive, refuse
from ...core.model.presets import GPTConfig
from ..attention.decode_attention import decode_attention
from ..attention.qkv_projection import qkv_projection
from ..common.indices import signed
from ..common.launch import door
from .decoder_block import KERNELS, Parts, merge_heads


class KVCache:
    """Keys and values of a batch of growing sequences.

    Parameters
    ----------
    config : GPTConfig
        The model's.
    batch, capacity : int
        Sequences, and positions in each: prompt, padding and what is generated.
    device : torch device, optional
    dtype : torch.dtype, optional
        The model's.

    Raises
    ------
    ValueError
        If a size is not above 0, or the capacity is beyond the model's context.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        expect_positive("batch", batch)
        expect_positive("capacity", capacity)
        if capacity > config.n_ctx:
            refuse(
                "capacity",
                f"at most n_ctx = {config.n_ctx}",
                str(capacity),
                "the longest prompt and max_new_tokens together exceed the context",
            )
        shape = (config.n_layer, 2, batch, config.n_head, capacity, config.d_head)
        # Never read before they are written, and 0 so that nobody meets a stray NaN.
        self.kept = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, device=device, dtype=torch.int32)
        self.index = torch.arange(capacity, device=device)
        self.length = 0
        self.n_new = 0
        self.key_start: torch.Tensor | None = None

    def begin(self, n_new: int, key_start: torch.Tensor | None) -> torch.Tensor:
        """Make room for new positions, which every layer then fills.

        Parameters
        ----------
        n_new : int
            Positions.
        key_start : torch.Tensor of int [batch] or None
            Where each sequence begins; given in the first call.

        Returns
        -------
        torch.Tensor of int [batch, n_new]
            Each new token's position in its sequence; 0 for padding.

        Raises
        ------
        ValueError
            If the cache is full, or a later call moves the beginnings.
        """
        capacity = self.kept.shape[4]
        if self.length + n_new > capacity:
            refuse(
                "tokens",
                f"at most {capacity - self.length} more: the cache holds {capacity} positions",
                str(n_new),
                "a cache made for fewer tokens",
            )
        if self.length == 0:
            self.key_start = signed(key_start)
        elif key_start is not None and key_start is not self.key_start:
            refuse("key_start", "None after the first call", "a tensor", "the cache knows it")
        index = self.index.narrow(0, self.length, n_new)
        self.length += n_new
        self.lengths += n_new
        self.n_new = n_new
        if self.key_start is None:
            return index.expand(len(self.lengths), n_new)
        return (index - self.key_start[:, None]).clamp(min=0)

    def attend(
        self,
        x: torch.Tensor,
        w_qkv: torch.Tensor,
        b_qkv: torch.Tensor | None,
        norm_weight: torch.Tensor | None,
        norm_bias: torch.Tensor | None,
        *,
        layer: int,
        parts: Parts,
        eps: float,
        window: int | None,
        first: int = 0,
    ) -> torch.Tensor:
        """Write the new positions' keys and values, and attend to all.

        Parameters
        ----------
        x, w_qkv, b_qkv, norm_weight, norm_bias, parts, eps
            As in `qkv_attention`, and the backend's parts (decoder_block.py).
        layer : int
            Whose cache.
        first : int
            The first new position that asks.
        """
        kept = self.kept[layer]  # [2, batch, head, capacity, d_head]
        if door().batch_invariant:
            if norm_weight is not None and norm_bias is None:
                norm_bias = torch.zeros_like(norm_weight)
            packed = qkv_projection(
                x, w_qkv, b_qkv, norm_weight, norm_bias, n_head=kept.shape[2], eps=eps
            )  # [3 * head, batch, n_new, d_head]
            new = packed.unflatten(0, (3, -1)).transpose(1, 2)  # [3, batch, head, n_new, d_head]
        else:
            if norm_weight is not None:
                x = parts.layer_norm(x, norm_weight, norm_bias, eps=eps)
            heads = parts.linear(x, w_qkv, b_qkv).view(*x.shape[:2], 3, kept.shape[2], -1)
            new = heads.permute(2, 0, 3, 1, 4)  # [3, batch, head, n_new, d_head]
        self._write(kept, new[1:])
        query = new[0, :, :, first:] if first else new[0]
        keys, values = kept.unbind()
        return merge_heads(self._attended(query, keys, values, parts, window))

    def _write(self, kept: torch.Tensor, new: torch.Tensor) -> None:
        """Write the new positions [2, batch, head, n_new, d_head] where they belong."""
        kept.narrow(3, self.length - self.n_new, self.n_new).copy_(new)

    def _attended(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        parts: Parts,
        window: int | None,
    ) -> torch.Tensor:
        """Let the new queries attend to all that is kept."""
        if self.length > self.n_new and parts is KERNELS and not door().batch_invariant:
            output, _ = decode_attention(
                query, keys, values, self.lengths, window=window, key_start=self.key_start
            )
            return output
        return parts.attention(
            query, keys.narrow(2, 0, self.length), values.narrow(2, 0, self.length),
            causal=True, window=window, key_start=self.key_start,
        )  # fmt: skip

    def rewind(self, n: int) -> None:
        """Forget the last positions of every sequence, so that it can go on another way.

        Parameters
        ----------
        n : int
            Positions, at most all.

        Raises
        ------
        ValueError
            If there are not so many.
        """
        if not 0 <= n <= self.length:
            refuse("n", f"0 to the {self.length} positions that are kept", str(n))
        self.length -= n
        self.lengths -= n

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the sequences alone.

        Parameters
        ----------
        rows : torch.Tensor of int [kept]
            Which, in order.

        Raises
        ------
        ValueError
            If they are no integers.
        """
        expect_integers(rows=rows)
        rows = rows.long()  # PyTorch takes uint8 for a mask.
        self.kept = self.kept[:, :, rows]
        self.lengths = self.lengths[rows]
        if self.key_start is not None:
            self.key_start = self.key_start[rows]
