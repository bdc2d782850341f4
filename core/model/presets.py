"""The published models: their sizes, parameters and FLOPs, as exact integers.

With C = d_model, A = n_head · d_head (= C in every preset), L layers, context T and vocabulary V,
a model with biases, an MLP of width 4C, learned positions and a tied head has

    P = V·C + T·C + L·(4·C·A + 8·C² + 3·A + 10·C) + 2·C     parameters    (12C² + 13C if A = C)
    F = L·(8·T·C·A + 16·T·C² + 4·T²·A) + 2·T·C·V            FLOPs of one forward pass, dense

The last 2C are the final norm, which GPT-1 has not. A multiply-add counts as 2 FLOPs, products of
matrices alone are counted, and *dense* means that attention is counted for all T² pairs of query
and key, as the literature does. A causal kernel needs only those with key ≤ query, T(T + 1)/2 of
them: `exact=True` counts these, and those of the band in a banded layer.

Sources: GPT-1, Radford et al. 2018; GPT-2, Radford et al. 2019 and the released code; GPT-3, Brown
et al. 2020, arXiv 2005.14165, table 2.1, with its two slips put right: 1.3B is printed as 24 heads
of 128 in 2048 (16 fit), 13B as d_model 5140 (40 heads of 128 are 5120); BERT, Devlin et al. 2018,
arXiv 1810.04805. "GPT-2 117M" in its paper has 124,439,808 parameters.

GPT-3's layers alternate between dense and locally banded attention; how wide the band is was never
published. The presets say 256, as the open replication GPT-Neo does: `preset("gpt3-175b", band=…)`
takes another, `band=None` makes every layer dense. It changes no parameter.
"""

import dataclasses
import math
from numbers import Integral
from typing import Any

from ..checks import expect_positive, refuse

GPT3_BAND = 256

UNPUBLISHED = ("chatgpt", "gpt-3.5", "gpt3.5", "gpt-4", "gpt4", "gpt-5", "gpt5")


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """What a model is made of.

    Attributes
    ----------
    vocab_size, n_ctx, n_layer, n_head, d_model : int
        V, T, L, heads and C.
    d_head : int
        Width of a head; 0, the default, becomes d_model / n_head.
    norm : str
        "pre" (GPT-2, GPT-3: each branch reads a normalised stream, and the end is normalised) or
        "post" (GPT-1, BERT: the stream itself is normalised after each branch).
    causal : bool
        False makes it an encoder.
    bias : bool
        Whether projections and norms have biases.
    band : int, optional
        Keys that a query of an odd layer sees, itself included; None: all, in every layer.
    activation : str
        "gelu_tanh", or BERT's "gelu_erf".
    eps : float
        Added to the variance in every norm.
    tied : bool
        Whether the output matrix is the token table.
    dropout : float
        Share of activations dropped in training, on embeddings, attention and both branches.
    n_types : int
        BERT's segment types; with them comes a norm of the embeddings. 0: neither.
    pooler : bool
        BERT's projection of the first position.

    Raises
    ------
    ValueError
        If a number is out of range, or d_model is no multiple of n_head and d_head is not given.
    """

    vocab_size: int
    n_ctx: int
    n_layer: int
    n_head: int
    d_model: int
    d_head: int = 0
    norm: str = "pre"
    causal: bool = True
    bias: bool = True
    band: int | None = None
    activation: str = "gelu_tanh"
    eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.0
    n_types: int = 0
    pooler: bool = False

    def __post_init__(self) -> None:
        counts = ("vocab_size", "n_ctx", "n_layer", "n_head", "d_model", "d_head", "n_types")
        for name in (*counts, "band"):
            value = getattr(self, name)
            if not isinstance(value, Integral) and not (name == "band" and value is None):
                refuse(name, "an integer", repr(value), "a quotient by /, or 8.0 in a JSON file")
        for name in ("vocab_size", "n_ctx", "n_layer", "n_head", "d_model", "eps"):
            expect_positive(name, getattr(self, name))
        if not self.d_head:
            if self.d_model % self.n_head:
                refuse(
                    "d_model",
                    f"a multiple of n_head = {self.n_head}",
                    str(self.d_model),
                    "GPT-3 13B is printed with 5140: 5120 is meant; or give d_head",
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_head)
        expect_positive("d_head", self.d_head)
        if self.norm not in ("pre", "post"):
            refuse("norm", "'pre' or 'post'", repr(self.norm))
        if self.activation not in ("gelu_tanh", "gelu_erf"):
            refuse("activation", "'gelu_tanh' or 'gelu_erf'", repr(self.activation))
        if self.band is not None:
            expect_positive("band", self.band)
            if not self.causal:
                refuse("band", "None unless causal", str(self.band), "a band looks back only")
        if not 0 <= self.dropout < 1:
            refuse("dropout", "a share from 0 to below 1", repr(self.dropout))

    @property
    def d_attention(self) -> int:
        """Width of all heads side by side, A = n_head · d_head."""
        return self.n_head * self.d_head

    @property
    def d_mlp(self) -> int:
        """Width of the MLP's hidden layer, 4C."""
        return 4 * self.d_model

    @property
    def final_norm(self) -> bool:
        """Whether a norm follows the last block: a post-LN block has ended in one already."""
        return self.norm == "pre"

    def window(self, layer: int) -> int | None:
        """Return how many keys a query of this layer sees, itself included; None: all."""
        return self.band if layer % 2 else None


def _gpt2(n_layer: int, n_head: int, d_model: int) -> GPTConfig:
    return GPTConfig(50257, 1024, n_layer, n_head, d_model)


def _gpt3(n_layer: int, n_head: int, d_head: int, d_model: int) -> GPTConfig:
    return GPTConfig(50257, 2048, n_layer, n_head, d_model, d_head, band=GPT3_BAND)


PRESETS = {
    "gpt1": GPTConfig(40478, 512, 12, 12, 768, norm="post", dropout=0.1),
    "gpt2": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    "gpt3-125m": _gpt3(12, 12, 64, 768),
    "gpt3-350m": _gpt3(24, 16, 64, 1024),
    "gpt3-760m": _gpt3(24, 16, 96, 1536),
    "gpt3-1.3b": _gpt3(24, 16, 128, 2048),
    "gpt3-2.7b": _gpt3(32, 32, 80, 2560),
    "gpt3-6.7b": _gpt3(32, 32, 128, 4096),
    "gpt3-13b": _gpt3(40, 40, 128, 5120),
    "gpt3-175b": _gpt3(96, 96, 128, 12288),
    "bert-base": GPTConfig(
        30522, 512, 12, 12, 768, norm="post", causal=False, activation="gelu_erf", eps=1e-12,
        dropout=0.1, n_types=2, pooler=True,
    ),
}  # fmt: skip


def preset(name: str, **changes: Any) -> GPTConfig:
    """Return a published configuration, with some fields changed.

    Parameters
    ----------
    name : str
        A key of `PRESETS`; case and "_" for "-" do not matter.
    **changes
        Fields of `GPTConfig`, such as ``dropout=0.0`` or ``band=512``.

    Returns
    -------
    GPTConfig

    Raises
    ------
    ValueError
        If there is no such preset, or its architecture was never published.
    """
    key = name.lower().replace("_", "-")
    known = f"one of {', '.join(PRESETS)}"
    if key.startswith(UNPUBLISHED):
        refuse(
            "name",
            known,
            repr(name),
            "the architecture of GPT-3.5, ChatGPT and GPT-4 is unpublished: it has no parameter "
            "count to state. The pipeline that made ChatGPT runs on any preset",
        )
    if key.startswith("instructgpt"):
        refuse("name", known, repr(name), "InstructGPT is GPT-3: gpt3-1.3b, -6.7b or -175b")
    if key not in PRESETS:
        refuse("name", known, repr(name))
    if changes.keys() & {"n_head", "d_model"}:
        changes = {"d_head": 0} | changes  # It follows from the new ones.
    return dataclasses.replace(PRESETS[key], **changes)


# --- parameters ------------------------------------------------------------------------------


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """List every parameter's name and shape, in the order of the forward pass.

    Parameters
    ----------
    config : GPTConfig

    Returns
    -------
    dict of str to tuple of int
        Hugging Face's names for GPT-2, without their prefix ``transformer.``; projections are
        [in, out]. BERT's additions: wtt (segment types), ln_emb, pooler.
    """
    vocab, c, a = config.vocab_size, config.d_model, config.d_attention
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocab, c), "wpe.weight": (config.n_ctx, c)}

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        if config.bias:
            shapes[f"{name}.bias"] = weight[-1:]

    if config.n_types:
        shapes["wtt.weight"] = (config.n_types, c)
        add("ln_emb", c)
    for layer in range(config.n_layer):
        block = f"h.{layer}"
        add(f"{block}.ln_1", c)
        add(f"{block}.attn.c_attn", c, 3 * a)
        add(f"{block}.attn.c_proj", a, c)
        add(f"{block}.ln_2", c)
        add(f"{block}.mlp.c_fc", c, config.d_mlp)
        add(f"{block}.mlp.c_proj", config.d_mlp, c)
    if config.final_norm:
        add("ln_f", c)
    if config.pooler:
        add("pooler", c, c)
    if not config.tied:
        shapes["lm_head.weight"] = (vocab, c)
    return shapes


def parameter_count(config: GPTConfig) -> int:
    """Count the parameters by the closed form: it equals the sum over `parameter_shapes`."""
    vocab, c, a = config.vocab_size, config.d_model, config.d_attention
    norm = 2 * c if config.bias else c
    block = 4 * c * a + 8 * c * c + 2 * norm
    if config.bias:
        block += 3 * a + c + 5 * c  # c_attn, its c_proj, and the MLP's two
    count = vocab * c + config.n_ctx * c + config.n_layer * block
    if config.final_norm:
        count += norm
    if config.n_types:
        count += config.n_types * c + norm
    if config.pooler:
        count += c * c + (c if config.bias else 0)
    return count if config.tied else count + vocab * c


def count_shapes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Count the numbers in arrays of these shapes, without making them."""
    return sum(math.prod(shape) for shape in shapes.values())


# --- FLOPs -----------------------------------------------------------------------------------


def attention_pairs(time: int, *, causal: bool = True, window: int | None = None) -> int:
    """Count the pairs of query and key of which the first sees the second.

    Parameters
    ----------
    time : int
        Queries, and keys.
    causal : bool
        Query i sees keys 0 to i only.
    window : int, optional
        And of these only the last `window`.

    Returns
    -------
    int
    """
    if not causal:
        return time * time
    width = time if window is None else min(window, time)
    # The first `width` queries see 1, 2, … width keys; all others see `width`.
    return width * (width + 1) // 2 + (time - width) * width


def attention_flops(config: GPTConfig, time: int, *, exact: bool = False) -> int:
    """Count the FLOPs of QKᵀ and PV in all layers, forward."""
    if exact:
        pairs = sum(
            attention_pairs(time, causal=config.causal, window=config.window(layer))
            for layer in range(config.n_layer)
        )
    else:
        pairs = config.n_layer * time * time
    return 4 * config.d_attention * pairs


def flops_per_sequence(config: GPTConfig, time: int | None = None, *, exact: bool = False) -> int:
    """Count the FLOPs of one forward pass over one sequence, F.

    Parameters
    ----------
    config : GPTConfig
    time : int, optional
        Tokens in the sequence; the whole context if left out.
    exact : bool
        Count only the pairs of query and key that the masks let through.

    Returns
    -------
    int
        A multiply-add is 2; products of matrices alone, the logits included.

    Raises
    ------
    ValueError
        If `time` is not from 1 to n_ctx.
    """
    time = config.n_ctx if time is None else time
    if not 1 <= time <= config.n_ctx:
        refuse("time", f"1 to n_ctx = {config.n_ctx}", str(time))
    c, a = config.d_model, config.d_attention
    projections = 8 * time * c * a + 16 * time * c * c
    logits = 2 * time * c * config.vocab_size
    return config.n_layer * projections + attention_flops(config, time, exact=exact) + logits


def training_flops_per_sequence(
    config: GPTConfig,
    time: int | None = None,
    *,
    exact: bool = False,
    recomputed_attention: bool = False,
) -> int:
    """Count the FLOPs of forward and backward: 3F, for each product has two gradients.

    Parameters
    ----------
    config, time, exact
        As in `flops_per_sequence`.
    recomputed_attention : bool
        Add what a kernel spends that computes QKᵀ again in its backward, which then costs 2.5
        times its forward. It is work done, not work needed: leave it out of an MFU.

    Returns
    -------
    int
    """
    time = config.n_ctx if time is None else time
    flops = 3 * flops_per_sequence(config, time, exact=exact)
    if recomputed_attention:
        flops += attention_flops(config, time, exact=exact) // 2
    return flops
