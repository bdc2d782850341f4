"""The twin of DIRECTOR's guided log-probabilities: two heads' products and a log-softmax in one."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.language import director_scores as core_director_scores
from ....kernels.language import director_scores as triton_director_scores
from ....kernels.language.spans import token_scores_merge_kernel
from ....kernels.layers.product import PRODUCT_KERNELS
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats


def _director_scores_inputs(case: Case, draw: Draw) -> Inputs:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    hidden = draw.normal(n_tokens, d_model)
    std = case.get("magnitude", 1.0) / d_model**0.5  # the generator's logits' standard deviation
    opinion = case.get("opinion", 2.0) / d_model**0.5  # the classifier's, likewise
    # A tied head passes the transposed table, and so is torch.nn.Linear's matrix stored.
    weight, class_weight = (
        draw.normal(vocab, d_model, std=s).T if case.get("transposed") else
        draw.normal(d_model, vocab, std=s)
        for s in (std, opinion)
    )  # fmt: skip
    mask = draw.mask(n_tokens, share=case.get("share", 0.8))
    wanted = abs(draw.normal(n_tokens, std=1e4))
    if isinstance(hidden, np.ndarray):
        targets = wanted.astype(np.int64) % vocab
        targets[-1:] = vocab - 1  # the last column
        if case.get("poison"):
            hidden = np.where(mask[:, None], hidden, np.nan)
            targets = np.where(mask, targets, -100)
    else:
        targets = wanted.long() % vocab
    return Inputs(
        {"hidden": hidden, "weight": weight, "class_weight": class_weight},
        {"targets": targets, "mask": mask, "gamma": case.get("gamma", 1.0)},
    )


def _director_scores_real(activations: dict[str, Any]) -> Inputs:
    """Predict the next byte with the block's token table; words after words are guided by it."""
    hidden, table = activations["residual"][0, :-1], activations["token_table"]
    weight = table.T / hidden.shape[-1] ** 0.5  # [d_model, vocab]
    targets = activations["tokens"][0, 1:]
    return Inputs(
        {"hidden": hidden, "weight": weight, "class_weight": weight[:, ::-1].copy()},
        {"targets": targets, "mask": np.arange(len(targets)) >= 16, "gamma": 0.5},
    )


def _director_scores_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n_tokens, d_model, vocab = case["tokens"], case["d_model"], case["vocab"]
    product = 2 * n_tokens * d_model * vocab
    hidden, head = n_tokens * d_model, d_model * vocab
    arguments = floats(itemsize, hidden=hidden, weight=head, class_weight=head)
    arguments |= {"targets": 8 * n_tokens, "mask": n_tokens}
    # saved: lse of each token
    reads = arguments | {"d_log_prob": 4 * n_tokens, "saved": 4 * n_tokens}
    # Forward: |c|, exp, + 1, log, min, subtract, times γ, add; then as a cross-entropy (6).
    # Backward from logits that exist (computing them again is not counted): exp, p − 1, ·d, and
    # σ(−c) from a power (3), ·γ, ·d_g.
    return (
        Cost(
            2 * product + 14 * n_tokens * vocab,
            arguments,
            {"log_prob": 4 * n_tokens, "entropy": 4 * n_tokens},
        ),
        Cost(
            4 * product + 8 * n_tokens * vocab,
            reads,
            floats(itemsize, d_hidden=hidden, d_weight=head, d_class_weight=head),
        ),
    )


_CONTRACTS = {
    "director_scores_kernel": """
        hidden[n_tokens, d_model]; weight[d_model, vocab]; class_weight[d_model, vocab]
        targets_ptr[n_tokens]; mask_ptr[n_tokens]
        partial_ptr[cdiv(vocab, SPAN), 4, n_tokens]
        grid[cdiv(n_tokens, M_BYTES // itemsize) * cdiv(vocab, SPAN)]
        n_tokens <= MOST_COUNTED; vocab <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
    "director_scores_d_logits_kernel": """
        hidden[n_tokens, d_model]; weight[d_model, vocab]; class_weight[d_model, vocab]
        targets_ptr[n_tokens]; mask_ptr[n_tokens]; lse_ptr[n_tokens]; d_log_prob_ptr[n_tokens]
        d_g_ptr[n_tokens:d_logits_row_stride, vocab:1]
        d_c_ptr[n_tokens:d_logits_row_stride, vocab:1]
        grid[cdiv(n_tokens, M_BYTES // itemsize) * cdiv(vocab, N_BYTES // itemsize)]
        n_tokens <= MOST_COUNTED; vocab <= MOST_COUNTED; d_model <= MOST_COUNTED
    """,
}

director_scores = Twin(
    name="director_scores",
    forward=core_director_scores.director_scores_forward,
    backward=core_director_scores.director_scores_backward,
    kernel=triton_director_scores.director_scores,
    eager=triton_director_scores.director_scores_eager,
    arguments=("hidden", "weight", "class_weight"),
    results=core_director_scores.DirectorScores._fields,
    statistics=("entropy",),
    cases=st.fixed_dictionaries(
        {
            "tokens": sizes((0, 3), (1, 60)),
            "d_model": sizes((1, 3), (4, 40)),
            "vocab": sizes((1, 3), (4, 200)),
            "magnitude": st.sampled_from([1.0, 0.001, 10.0]),
            "opinion": st.sampled_from([2.0, 30.0]),
            "gamma": st.sampled_from([1.0, 0.0, 0.5, 3.0]),
            "share": st.sampled_from([0.8, 0.0, 1.0]),
            "poison": st.booleans(),
            **any_tensors,
        }
    ),
    corners=(
        {"tokens": 130, "d_model": 70, "vocab": 300, "gamma": 3.0, "poison": True, "seed": 1},
        # It takes more than one span. With a whole γ, for to gptwin prove e^(½·log σ) is opaque,
        # and spans are merged by products of such powers.
        {"tokens": 5, "d_model": 3, "vocab": 1100, "gamma": 2.0, "transposed": True, "seed": 2},
        # The classifier is sure of everything, in both directions.
        {"tokens": 40, "d_model": 20, "vocab": 50, "magnitude": 30.0, "opinion": 60.0, "seed": 3},
        {"tokens": 5, "d_model": 3, "vocab": 4, "share": 0.0, "poison": True, "seed": 4},
        # p is 1 for all, but for some digits of the last one's.
        {"tokens": 6, "d_model": 24, "vocab": 1, "seed": 5},
        {"tokens": 3, "d_model": 4, "vocab": 6, "gamma": 0.0, "share": 1.0, "seed": 6},
    ),
    inputs=_director_scores_inputs,
    real=_director_scores_real,
    shapes={
        "gpt2": {"tokens": 8192, "d_model": 768, "vocab": 50257, "transposed": True},
        # BlenderBot's 3B: d_model 2560, a vocabulary of 8,008.
        "blenderbot 3B": {"tokens": 4096, "d_model": 2560, "vocab": 8008, "transposed": True},
    },
    cost=_director_scores_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("hidden", "targets", "mask", "log_prob", "entropy"), 0)),
    studies=(
        {"tokens": 70, "d_model": 40, "vocab": 130, "share": 1.0},
        {"tokens": 10, "d_model": 8, "vocab": 20, "share": 1.0, "gamma": 0.5},
        {"tokens": 1, "d_model": 3, "vocab": 2, "share": 1.0},
    ),
    extremes=({"tokens": 4, "d_model": 3, "vocab": 5, "share": 0.5, "seed": 1},),
    axes=dict.fromkeys(("targets", "mask", "log_prob", "entropy"), "token")
    | {"hidden": "token d_model", "weight": "d_model vocab", "class_weight": "d_model vocab"},
    # As cross-entropy: a log-probability is rounded at its logit's size, and p inherits that. Here
    # that size is of g + γ·log σ(c).
    roundings=16.0,
    shared_kernels=(token_scores_merge_kernel, PRODUCT_KERNELS[2]),
)
