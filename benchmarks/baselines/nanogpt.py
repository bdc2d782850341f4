"""GPT-2 in plain, eager PyTorch, the way nanoGPT is built (github.com/karpathy/nanoGPT).

Modules of torch.nn, scaled_dot_product_attention, the logits of all positions in memory. Written
from its description, with GPT-2's tanh-GELU.
"""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, d_model: int, n_head: int, bias: bool) -> None:
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.c_proj = nn.Linear(d_model, d_model, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, time, d_model] to the same shape."""
        batch, time, d_model = x.shape
        query, key, value = (
            part.view(batch, time, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(d_model, dim=2)
        )
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(batch, time, d_model))


class MLP(nn.Module):
    """Widen by 4, GELU, narrow."""

    def __init__(self, d_model: int, bias: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(d_model, 4 * d_model, bias=bias)
        self.c_proj = nn.Linear(4 * d_model, d_model, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, time, d_model] to the same shape."""
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """A pre-LN block."""

    def __init__(self, d_model: int, n_head: int, bias: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model, bias=bias)
        self.attn = Attention(d_model, n_head, bias)
        self.ln_2 = nn.LayerNorm(d_model, bias=bias)
        self.mlp = MLP(d_model, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, time, d_model] to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """GPT-2 with a tied head; the initial weights are torch.nn's and meant to be replaced.

    Parameters
    ----------
    vocab_size, n_ctx, n_layer, n_head, d_model : int
    bias : bool
        Whether projections and norms have biases.
    """

    def __init__(
        self,
        vocab_size: int,
        n_ctx: int,
        n_layer: int,
        n_head: int,
        d_model: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab_size, d_model)
        self.wpe = nn.Embedding(n_ctx, d_model)
        self.h = nn.ModuleList(Block(d_model, n_head, bias) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(d_model, bias=bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map ids [batch, time] to logits [batch, time, vocab_size]."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return functional.linear(self.ln_f(x), self.wte.weight)

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of the targets."""
        return functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def load(self, parameters: dict[str, torch.Tensor]) -> None:
        """Copy GPT-2's weights, whose projections are [in, out]: torch.nn.Linear's transpose."""
        for name, parameter in self.named_parameters():
            parameter.copy_(parameters[name].T if is_projection(name) else parameters[name])


def is_projection(name: str) -> bool:
    """Say whether GPT-2 stores this parameter as the transpose of torch.nn.Linear's weight."""
    return name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
