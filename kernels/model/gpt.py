"""The GPT models as a PyTorch module: the twin of core/model/gpt.py, and what the pipeline trains.

    hidden = GPT(config)(tokens)        embedding, decoder blocks, final norm
    loss   = model.loss(tokens, targets)       straight from hidden states: no logits in memory
    logits = model.logits(hidden)

The state_dict has Hugging Face's names for GPT-2 without their prefix ``transformer.``, in the
order of `parameter_shapes`, and weights are [in, out] as there: a NumPy model's parameters load as
they are. On a GPU every block runs on the kernels; on a CPU on PyTorch's own fused operators.

`checkpointing = True` keeps of each block its input alone and runs it again in backward: activation
memory falls from about 17·d_model numbers a token and layer to one d_model, for a third more
computation. Gradients are the same bits.

Dropout (GPT-1) zeroes embeddings, attention weights and both branches, in training mode.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ...core.checks import expect_integers, expect_shape, refuse
from ...core.model.gpt import check_tokens
from ...core.model.parameters import initial_std
from ...core.model.presets import GPTConfig
from ..common.indices import signed
from ..common.launch import runs_on_triton
from ..layers.linear import linear
from .decoder_block import EAGER, KERNELS, Parts, check_masks, run_block
from .kv_cache import KVCache


class Weights(torch.nn.Module):
    """A weight and perhaps a bias, under the names they have in a checkpoint.

    Parameters
    ----------
    *shape : int
        Of the weight; the bias is its last axis.
    bias : bool
        Whether there is one.
    """

    def __init__(self, *shape: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(shape))
        self.bias = torch.nn.Parameter(torch.empty(shape[-1])) if bias else None

    def forward(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return both. Called, not read, the module runs hooks first, as those of pruning.

        Returns
        -------
        weight, bias : torch.Tensor, and another or None
        """
        return self.weight, self.bias


class Block(torch.nn.Module):
    """One decoder block: its parameters, and the call of `run_block`.

    Parameters
    ----------
    config : GPTConfig
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        c, a, bias = config.d_model, config.d_attention, config.bias
        self.ln_1 = Weights(c, bias=bias)
        self.attn = torch.nn.ModuleDict(
            {"c_attn": Weights(c, 3 * a, bias=bias), "c_proj": Weights(a, c, bias=bias)}
        )
        self.ln_2 = Weights(c, bias=bias)
        self.mlp = torch.nn.ModuleDict(
            {
                "c_fc": Weights(c, config.d_mlp, bias=bias),
                "c_proj": Weights(config.d_mlp, c, bias=bias),
            }
        )

    def forward(
        self, x: torch.Tensor, attend: Callable[..., torch.Tensor], parts: Parts, first: int = 0
    ) -> torch.Tensor:
        """Run the block.

        Parameters
        ----------
        x : torch.Tensor [batch, time, d_model]
        """
        dropout = self.config.dropout if self.training else 0.0
        if dropout > 0:
            # The seed is drawn here, so that checkpointing, which restores the generator,
            # repeats it. A compiler would stop at the draw, and what it compiles without kernels
            # reads no seed (attention/sdpa.py).
            unused = parts is not KERNELS and torch.compiler.is_compiling()
            seed = 0 if unused else int(torch.randint(2**62, ()))
            attend = functools.partial(attend, dropout=dropout, seed=seed)
        return run_block(
            x, self.parameters_in(x.dtype), attend, parts=parts, norm=self.config.norm,
            eps=self.config.eps, dropout=dropout, first=first,
        )  # fmt: skip

    def parameters_in(self, dtype: torch.dtype) -> list[Any]:
        """Return the twelve parameters, in the order of `decoder_block`.

        Parameters
        ----------
        dtype : torch.dtype
            To compute in.

        Returns
        -------
        list of (torch.Tensor or None)
        """
        modules = (self.ln_1, *self.attn.values(), self.ln_2, *self.mlp.values())
        held = [p for module in modules for p in module()]
        return [p if p is None or p.dtype == dtype else p.to(dtype) for p in held]


class GPT(torch.nn.Module):
    """A GPT of any size.

    Parameters
    ----------
    config : GPTConfig
    generator : torch.Generator, optional
        Draws the initial parameters.
    init : str
        As in core's `initial_std`: "gpt2", or "fan_in" for small models.

    Attributes
    ----------
    checkpointing : bool
        Whether backward computes each block again instead of keeping its activations.
    eager : Parts
        What the model is composed of where kernels do not run; `kernels.cpu.speed_up` puts faster
        parts in.
    compute_dtype : torch.dtype or None
        bfloat16: compute in it, and keep parameters, their gradients and so an optimizer's sums in
        float32. Each pass rounds the parameters anew. None: as the parameters are.

    Raises
    ------
    ValueError
        If the configuration has parts of BERT.
    """

    def __init__(
        self,
        config: GPTConfig,
        generator: torch.Generator | None = None,
        *,
        init: str = "gpt2",
    ) -> None:
        super().__init__()
        if config.activation != "gelu_tanh" or config.n_types or config.pooler:
            refuse("config", "a model of GPT's parts", "BERT's parts", "a preset to be counted")
        self.config = config
        self.checkpointing = False
        self.eager = EAGER
        self.compute_dtype: torch.dtype | None = None
        self.wte = Weights(config.vocab_size, config.d_model)
        self.wpe = Weights(config.n_ctx, config.d_model)
        self.h = torch.nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = Weights(config.d_model, bias=config.bias) if config.final_norm else None
        self.lm_head = None if config.tied else Weights(config.vocab_size, config.d_model)
        self.reset_parameters(generator, init)

    @torch.no_grad()
    def reset_parameters(
        self, generator: torch.Generator | None = None, init: str = "gpt2"
    ) -> None:
        """Draw the parameters anew, from the distributions of core's `init_parameters`.

        Parameters
        ----------
        generator : torch.Generator, optional
            On the parameters' device.
        init : str
            As in core's `initial_std`.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = initial_std(self.config, name, parameter.shape[0], init)
            parameter.normal_(0, std, generator=generator)

    def forward(
        self,
        tokens: torch.Tensor,
        *,
        key_start: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        cache: KVCache | None = None,
        with_head: bool = False,
        states_from: int = 0,
    ) -> Any:
        """Compute the hidden states that the logits, or another head, are read from.

        Parameters
        ----------
        tokens : torch.Tensor of int [batch, time]
            At most n_ctx in a row; with a cache, the tokens that follow those in it.
        key_start : torch.Tensor of int [batch], optional
            Tokens before it are left padding, which nobody sees.
        positions : torch.Tensor of int [batch, time], optional
            Rows of the position table; counted from the sequence's first token if left out.
        cu_seqlens : torch.Tensor of int [n_documents + 1], optional
            Boundaries of documents packed on the time axis, as in `attention`.
        cache : KVCache, optional
            Read and extended; for evaluation mode.
        with_head : bool
            Return `output_matrix()` as well. Of a tied head, it is the table that the tokens were
            looked up in, as `parts.embed` hands it on: the gradients of both uses may be one.
        states_from : int
            The first position of `tokens` whose hidden state is wanted. Those before it end as keys
            and values of the last block, whose other products and the final norm they are spared.

        Returns
        -------
        hidden : torch.Tensor [batch, time - states_from, d_model]
            After the final norm.
        head : torch.Tensor [d_model, vocab_size]
            If asked for.

        Raises
        ------
        ValueError
            If a shape, dtype, device or option is wrong.
        """
        config = self.config
        check_tokens(tokens, config)
        expect_integers(key_start=key_start, cu_seqlens=cu_seqlens, positions=positions)
        tokens = signed(tokens)
        positions, cu_seqlens = signed(positions), signed(cu_seqlens)
        if not 0 <= states_from <= tokens.shape[1]:
            expected = f"0 to the {tokens.shape[1]} tokens of a row"
            refuse("states_from", expected, str(states_from))
        if cache is not None:
            if cu_seqlens is not None or not config.causal or self.training:
                refuse("cache", "None", "a cache", "packed documents, an encoder, or training mode")
            counted = cache.begin(tokens.shape[1], key_start)
            positions = counted if positions is None else positions
        elif positions is None:
            positions = count_positions(tokens, signed(key_start), cu_seqlens)
        masks: dict[str, Any] = {
            "causal": config.causal, "key_start": key_start, "cu_seqlens": cu_seqlens,
        }  # fmt: skip
        check_masks(tokens, config.n_head, config.d_head, window=None, **masks)
        tables = (self.wte()[0], self.wpe()[0])
        on_triton = runs_on_triton("gpt", tokens=tokens, table=tables[0])
        parts = KERNELS if on_triton else self.eager
        x, table = parts.embed(tokens, *tables, positions=positions)
        x = x.to(self.dtype)  # [batch, time, d_model]
        if config.dropout > 0:
            x = functional.dropout(x, config.dropout, self.training)

        for layer, block in enumerate(self.h):
            options: dict[str, Any] = {"window": config.window(layer), "eps": config.eps}
            if cache is not None:
                attend = functools.partial(cache.attend, layer=layer, parts=parts, **options)
            else:
                options |= masks
                attend = functools.partial(parts.qkv_attention, n_head=config.n_head, **options)
            first = states_from if layer == config.n_layer - 1 else 0
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, parts, first, use_reentrant=False)
            else:
                x = block(x, attend, parts, first)
        x = self.final_norm(x, parts)
        if not with_head:
            return x
        return x, table.to(self.dtype).T if config.tied else self.output_matrix()

    def final_norm(self, x: torch.Tensor, parts: Parts) -> torch.Tensor:
        """Normalise the last block's output, if the model does.

        Parameters
        ----------
        x : torch.Tensor [..., d_model]
        parts : Parts
            Of the backend that runs.

        Returns
        -------
        torch.Tensor [..., d_model]
        """
        if self.ln_f is None:
            return x
        weight, bias = self.ln_f()
        bias = None if bias is None else bias.to(x.dtype)
        return parts.layer_norm(x, weight.to(x.dtype), bias, eps=self.config.eps)

    @property
    def dtype(self) -> torch.dtype:
        """What hidden states are computed in."""
        return self.compute_dtype or self.wte.weight.dtype

    def output_matrix(self) -> torch.Tensor:
        """Return what turns hidden states into logits.

        Returns
        -------
        torch.Tensor [d_model, vocab_size]
            A transposed view of the token table, or of the head's own matrix.
        """
        weight, _ = (self.wte if self.lm_head is None else self.lm_head)()
        return weight.to(self.dtype).T

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Score every token as the next one.

        Parameters
        ----------
        hidden : torch.Tensor [..., d_model]
            From `forward`.

        Returns
        -------
        torch.Tensor [..., vocab_size]
        """
        return linear(hidden, self.output_matrix())

    def loss(
        self,
        tokens: torch.Tensor,
        targets: torch.Tensor,
        ignore_index: int = -100,
        **options: Any,
    ) -> torch.Tensor:
        """Compute the mean cross-entropy of the targets.

        Parameters
        ----------
        tokens : torch.Tensor of int [batch, time]
        targets : torch.Tensor of int [batch, time]
            The token that follows each token.
        ignore_index : int
            The target of a position that does not count.
        **options
            `key_start`, `positions`, `cu_seqlens`, as in `forward`.

        Returns
        -------
        torch.Tensor []
            In nats; 0 if no position counts.

        Raises
        ------
        ValueError
            As in `forward`, or if `targets` is not shaped like `tokens`.
        """
        expect_shape("targets", targets, tuple(tokens.shape), "one target for each token")
        expect_integers(targets=targets)
        targets = signed(targets)
        hidden, head = self(tokens, with_head=True, **options)
        hidden = hidden.flatten(0, 1)  # [batch, time, d_model] -> [token, d_model]
        on_triton = runs_on_triton("loss", hidden=hidden, targets=targets)
        loss = (KERNELS if on_triton else self.eager).loss
        return loss(hidden, head, targets.flatten(), ignore_index=ignore_index)


def count_positions(
    tokens: torch.Tensor, key_start: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> torch.Tensor | None:
    """Count each token's position from the first of its sequence, or of its document.

    Returns
    -------
    torch.Tensor of int [batch, time] or None
        0 for padding; None for 0, 1, 2, ... in every row.
    """
    if key_start is None and cu_seqlens is None:
        return None
    index = torch.arange(tokens.shape[1], device=tokens.device)
    first = torch.zeros_like(index)
    if cu_seqlens is not None:
        document = torch.searchsorted(cu_seqlens, index.to(cu_seqlens.dtype), right=True) - 1
        first = cu_seqlens[document]  # [time]
    if key_start is not None:
        first = torch.maximum(first, key_start[:, None])  # [batch, time]
    return (index - first).clamp(min=0).expand(tokens.shape)
