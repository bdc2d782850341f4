"""The twin of the language model's loss: the head's product and cross-entropy in one."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.language import cross_entropy as core_cross_entropy
from ....kernels.language import cross_entropy as triton_cross_entropy
from ....kernels.language.spans import token_scores_merge_kernel
from ....kernels.language.token_scores import D_LOGITS_KERNELS, token_scores_kernel
from ....kernels.layers.product import PRODUCT_KERNELS
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats

# What scores tokens launches. [2] and [4], by the bytes of a number, have as many configurations.
SCORING_KERNELS = (
    token_scores_kernel,
    token_scores_merge_kernel,
    D_LOGITS_KERNELS[2],
    PRODUCT_KERNELS[2],
)


def _cross_entropy_inputs(case: Case, draw: Draw) -> Inputs:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    hidden = draw.normal(n_tokens, d_model)
    std = case.get("magnitude", 1.0) / d_model**0.5  # the logits' standard deviation
    # A tied head passes the transposed table.
    tied = case.get("tied")
    weight = (
        draw.normal(vocab, d_model, std=std).T if tied else draw.normal(d_model, vocab, std=std)
    )
    ignored = draw.mask(n_tokens, share=case.get("ignored", 0.2))
    label = case.get("ignore_index", -100)
    wanted = abs(draw.normal(n_tokens, std=1e4))
    if isinstance(hidden, np.ndarray):
        targets = np.where(ignored, label, wanted.astype(np.int64) % vocab)
        targets[-1:] = vocab - 1  # the last column
        if case.get("poison"):
            hidden = np.where((targets == label)[:, None], np.nan, hidden)
    else:
        targets = wanted.long() % vocab
    options = {"ignore_index": label, "reduction": case.get("reduction", "mean")}
    return Inputs({"hidden": hidden, "weight": weight}, {"targets": targets, **options})


def _cross_entropy_real(activations: dict[str, Any]) -> Inputs:
    """Predict the next byte with the block's token table, tied."""
    hidden, table = activations["residual"][0, :-1], activations["token_table"]
    weight = table.T / hidden.shape[-1] ** 0.5  # [d_model, vocab]
    return Inputs({"hidden": hidden, "weight": weight}, {"targets": activations["tokens"][0, 1:]})


def _cross_entropy_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    product = 2 * n_tokens * d_model * vocab
    hidden, weight = n_tokens * d_model, d_model * vocab
    arguments = floats(itemsize, hidden=hidden, weight=weight) | {"targets": 8 * n_tokens}
    loss = 4 * (n_tokens if case.get("reduction") == "none" else 1)
    results = {"loss": loss, "log_prob": 4 * n_tokens, "entropy": 4 * n_tokens}
    cotangents = {f"d_{name}": size for name, size in results.items()}
    # saved: lse, and which tokens count; for their mean, how many do
    saved = 5 * n_tokens + 8 * (case.get("reduction", "mean") == "mean")
    reads = arguments | cotangents | {"entropy": 4 * n_tokens, "saved": saved}
    # Forward: maximum, subtract, exp, sum, and x − m times e for the entropy (2). Backward:
    # d_hidden and d_W from logits that exist (computing them again is not counted), exp, p − 1, ·g.
    return (
        Cost(1 + product + 6 * n_tokens * vocab, arguments, results),
        Cost(
            1 + 2 * product + 4 * n_tokens * vocab,
            reads,
            floats(itemsize, d_hidden=hidden, d_weight=weight),
        ),
    )


_CONTRACTS = {
    "token_scores_kernel": """
        hidden[n_tokens, d_model]; weight[d_model, vocab]; targets_ptr[n_tokens]; mask_ptr[n_tokens]
        partial_ptr[cdiv(vocab, SPAN), 4, n_tokens]
        grid[cdiv(n_tokens, M_BYTES // itemsize) * cdiv(vocab, SPAN)]
        n_tokens <= MOST_COUNTED; vocab <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
    "token_scores_merge_kernel": """
        partial_ptr[n_spans, 4, n_tokens]; targets_ptr[n_tokens]; mask_ptr[n_tokens]
        log_prob_ptr[n_tokens]; entropy_ptr[n_tokens]; lse_ptr[n_tokens]
        grid[cdiv(n_tokens, BLOCK)]; n_spans <= MOST_COUNTED
    """,
    "token_scores_d_logits_kernel": """
        hidden[n_tokens, d_model]; weight[d_model, vocab]; targets_ptr[n_tokens]; mask_ptr[n_tokens]
        entropy_ptr[n_tokens]; lse_ptr[n_tokens]; d_log_prob_ptr[n_tokens]; d_entropy_ptr[n_tokens]
        d_logits_ptr[n_tokens:d_logits_row_stride, vocab:1]
        grid[cdiv(n_tokens, M_BYTES // itemsize) * cdiv(vocab, N_BYTES // itemsize)]
        n_tokens <= MOST_COUNTED; vocab <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
}

cross_entropy = Twin(
    name="cross_entropy",
    forward=core_cross_entropy.cross_entropy_forward,
    backward=core_cross_entropy.cross_entropy_backward,
    kernel=triton_cross_entropy.cross_entropy,
    eager=triton_cross_entropy.cross_entropy_eager,
    arguments=("hidden", "weight"),
    results=("loss", "log_prob", "entropy"),
    cases=st.fixed_dictionaries(
        {
            "tokens": sizes((0, 3), (1, 100)),
            "d_model": sizes((1, 3), (4, 40)),
            "vocab": sizes((1, 3), (4, 300)),
            "magnitude": st.sampled_from([1.0, 0.001, 10.0]),
            "ignored": st.sampled_from([0.2, 0.0, 1.0]),
            "ignore_index": st.sampled_from([-100, 0]),
            "reduction": st.sampled_from(core_cross_entropy.REDUCTIONS),
            "poison": st.booleans(),
            **any_tensors,
        }
    ),
    corners=(
        {"tokens": 130, "d_model": 70, "vocab": 300, "poison": True, "seed": 1},
        # It takes more than one span.
        {"tokens": 5, "d_model": 3, "vocab": 1100, "reduction": "none", "seed": 2},
        {
            "tokens": 40,
            "d_model": 20,
            "vocab": 50,
            "magnitude": 30.0,
            "reduction": "sum",
            "seed": 3,
        },
        {"tokens": 5, "d_model": 3, "vocab": 4, "ignored": 1.0, "poison": True, "seed": 4},
        # p is 1 for all, but for some digits of the last one's.
        {"tokens": 6, "d_model": 24, "vocab": 1, "seed": 5},
        {"tokens": 1, "d_model": 40, "vocab": 2, "magnitude": 30.0, "ignored": 0.0, "seed": 8},
    ),
    inputs=_cross_entropy_inputs,
    real=_cross_entropy_real,
    shapes={
        "gpt2": {"tokens": 8192, "d_model": 768, "vocab": 50257, "tied": True},
        "gpt2, not tied": {"tokens": 8192, "d_model": 768, "vocab": 50257},
        "vocabulary 151,936": {"tokens": 8192, "d_model": 4096, "vocab": 151936, "tied": True},
    },
    cost=_cross_entropy_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("hidden", "targets", "loss", "log_prob", "entropy"), 0)),
    studies=(
        {"tokens": 70, "d_model": 40, "vocab": 130, "ignored": 0.0},
        {"tokens": 10, "d_model": 8, "vocab": 20, "ignored": 0.0, "reduction": "none"},
        {"tokens": 1, "d_model": 3, "vocab": 2, "ignored": 0.0, "reduction": "sum"},
    ),
    extremes=(
        {"tokens": 4, "d_model": 3, "vocab": 5, "ignored": 0.5, "seed": 1},
        {"tokens": 3, "d_model": 2, "vocab": 4, "ignored": 0.0, "reduction": "none"},
    ),
    axes=dict.fromkeys(("targets", "loss", "log_prob", "entropy"), "token")
    | {"hidden": "token d_model", "weight": "d_model vocab"},
    # A log-probability is rounded at its logit's size, and p inherits that.
    roundings=16.0,
    shared_kernels=SCORING_KERNELS,
)
