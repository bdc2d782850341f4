"""The twins of a rollout: KL, token rewards, advantages and their whitening."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...core.rlhf import exact_kl as core_exact_kl
from ...core.rlhf import gae as core_gae
from ...core.rlhf import kl as core_kl
from ...core.rlhf import token_rewards as core_token_rewards
from ...core.rlhf import whiten as core_whiten
from ...kernels.common.column_sum import column_sum_kernel
from ...kernels.rlhf import exact_kl as triton_exact_kl
from ...kernels.rlhf import gae as triton_gae
from ...kernels.rlhf import kl as triton_kl
from ...kernels.rlhf import token_rewards as triton_token_rewards
from ...kernels.rlhf import whiten as triton_whiten
from .strategies import any_tensors, sizes
from .twin import Case, Cost, Draw, Inputs, Twin, floats

# None, some, most and all of a batch are response tokens.
shares = st.sampled_from([0.0, 0.3, 0.8, 1.0])
estimators = st.sampled_from(core_kl.ESTIMATORS)
ROLLOUT = [512, 1024]


def _batches(*times: tuple[int, int]) -> st.SearchStrategy[list[int]]:
    """Draw [batch, time], each range of times as likely."""
    time = st.one_of(*(st.integers(low, high) for low, high in times))
    return st.tuples(st.integers(0, 4), time).map(list)


def _log_probs(case: Case, draw: Draw) -> tuple[Any, Any]:
    """Return a policy's log-probabilities and those of a reference near it."""
    shape = case["shape"]
    # float32 knows the ratio of both best near 0, where tokens are certain.
    reference = draw.normal(*shape, mean=-3.0, std=1.0)
    if case.get("certain"):
        reference = reference * 0.001
    return reference + draw.normal(*shape, std=case.get("gap", 1.0)), reference


def _real_log_probs(a: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return both log-probabilities of the text's bytes, and the second half as the response."""
    both = []
    for logits in (a["up"], 0.8 * a["up"] + 0.2):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        both.append(np.take_along_axis(log_p, a["tokens"][..., None], axis=-1)[..., 0])
    return *both, np.arange(a["tokens"].shape[1])[None] >= a["tokens"].shape[1] // 2


# --- kl ------------------------------------------------------------------------------------------


def _kl_inputs(case: Case, draw: Draw) -> Inputs:
    log_prob, reference = _log_probs(case, draw)
    return Inputs(
        {"log_prob": log_prob, "reference_log_prob": reference},
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "estimator": case.get("estimator", "k1"),
        },
    )


def _kl_real(a: dict[str, Any]) -> Inputs:
    log_prob, reference, mask = _real_log_probs(a)
    return Inputs(
        {"log_prob": log_prob, "reference_log_prob": reference}, {"mask": mask, "estimator": "k3"}
    )


def _kl_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    flops = {"k1": 1, "k2": 3, "k3": 4}[case.get("estimator", "k1")]
    reads = floats(itemsize, log_prob=n, reference_log_prob=n) | {"mask": n}
    gradients = floats(itemsize, d_log_prob=n, d_reference_log_prob=n)
    return (
        Cost(flops * n, reads, floats(itemsize, kl=n)),
        Cost((flops + 1) * n, reads | floats(itemsize, d_kl=n), gradients),
    )


kl = Twin(
    name="kl",
    forward=core_kl.kl_forward,
    backward=core_kl.kl_backward,
    kernel=triton_kl.kl,
    eager=triton_kl.kl_eager,
    arguments=("log_prob", "reference_log_prob"),
    results=("kl",),
    cases=st.fixed_dictionaries(
        {
            "shape": _batches((0, 40), (1000, 1500)),
            "gap": st.sampled_from([1.0, 1e-4, 0.1, 10.0]),
            "share": shares,
            "estimator": estimators,
            **any_tensors,
        }
    ),
    corners=(
        *(
            {"shape": [3, 1500], "estimator": e, "gap": gap, "seed": 1}
            for e in core_kl.ESTIMATORS
            for gap in (1.0, 1e-4)
        ),
        # The last terms of k3's series count here alone: mutants of them survived.
        {"shape": [3, 1500], "estimator": "k3", "gap": 0.15, "certain": True, "seed": 2},
    ),
    inputs=_kl_inputs,
    real=_kl_real,
    shapes={
        "rollout, k1": {"shape": ROLLOUT},
        "rollout, k3": {"shape": ROLLOUT, "estimator": "k3"},
        "minibatch, k2": {"shape": [64, 1024], "estimator": "k2"},
    },
    cost=_kl_cost,
    studies=(
        {"shape": [3, 900], "share": 1.0},
        {"shape": [2, 30], "share": 1.0, "estimator": "k2"},
        {"shape": [1, 1], "share": 1.0, "estimator": "k3"},
    ),
    extremes=tuple({"shape": [2, 4], "estimator": e} for e in core_kl.ESTIMATORS),
    axes=dict.fromkeys(("log_prob", "reference_log_prob", "mask", "kl"), "batch time"),
    dtypes=("float32",),
)

# --- exact_kl ------------------------------------------------------------------------------------


def _exact_kl_inputs(case: Case, draw: Draw) -> Inputs:
    rows, vocab = case["rows"], case["vocab"]
    x = draw.normal(rows, vocab, std=case.get("magnitude", 1.0), mean=case.get("offset", 0.0))
    y = draw.normal(rows, vocab, std=case.get("magnitude", 1.0))
    if case.get("minus_inf"):  # The reference has few, for each makes its row infinite.
        x = draw.sparse_minus_inf(x, share=0.4)
        y = draw.sparse_minus_inf(y, share=0.02)
    if case.get("nan") and isinstance(x, np.ndarray):
        x = np.where(np.arange(vocab) == vocab // 2, np.nan, x)
    return Inputs(
        {"logits": x, "reference_logits": y},
        {"mask": draw.mask(rows, share=case.get("share", 0.8))},
    )


def _exact_kl_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n, rows = case["rows"] * case["vocab"], case["rows"]
    logits = floats(itemsize, logits=n, reference_logits=n)
    gradients = floats(itemsize, d_logits=n, d_reference_logits=n)
    # forward, a token: 2 maxima, 3 subtractions, 2 exponentials, 1 product, 3 sums
    return (
        Cost(11 * n, logits | {"mask": rows}, {"kl": 4 * rows}),
        # saved: two maxima, two sums and the divergence of each row
        Cost(12 * n, logits | {"saved": 20 * rows, "d_kl": 4 * rows}, gradients),
    )


_VOCAB_BLOCK = triton_exact_kl.MAX_BLOCK

exact_kl = Twin(
    name="exact_kl",
    forward=core_exact_kl.exact_kl_forward,
    backward=core_exact_kl.exact_kl_backward,
    kernel=triton_exact_kl.exact_kl,
    eager=triton_exact_kl.exact_kl_eager,
    arguments=("logits", "reference_logits"),
    results=("kl",),
    cases=st.fixed_dictionaries(
        {
            "rows": st.integers(0, 5),
            "vocab": sizes((1, 40), (41, 600), (_VOCAB_BLOCK - 1, 2 * _VOCAB_BLOCK + 100)),
            "magnitude": st.sampled_from([1.0, 0.01, 30.0]),
            "offset": st.sampled_from([0.0, 100.0]),
            "minus_inf": st.booleans(),
            "share": shares,
            **any_tensors,
        }
    ),
    corners=(
        {"rows": 37, "vocab": 77, "minus_inf": True, "seed": 1},
        # impossible tokens of which the policy's probability underflows
        {"rows": 80, "vocab": 9, "minus_inf": True, "magnitude": 100.0, "seed": 3},
        {"rows": 40, "vocab": 50, "minus_inf": True, "nan": True, "seed": 4},
        {"rows": 3, "vocab": 2 * _VOCAB_BLOCK + 1, "share": 1.0, "magnitude": 3.0, "seed": 2},
    ),
    inputs=_exact_kl_inputs,
    real=lambda a: Inputs(
        {"logits": a["up"], "reference_logits": 0.8 * a["up"] + 0.2},
        {"mask": np.arange(a["up"].shape[1])[None] >= 8},
    ),
    shapes={
        "gpt2 vocabulary": {"rows": 8192, "vocab": 50257},
        "byte vocabulary": {"rows": 65536, "vocab": 256},
    },
    cost=_exact_kl_cost,
    studies=(
        {"rows": 40, "vocab": 60, "share": 1.0},
        {"rows": 2, "vocab": 2 * _VOCAB_BLOCK + 1, "share": 1.0},
        {"rows": 1, "vocab": 3, "share": 1.0},
    ),
    extremes=({"rows": 4, "vocab": 3, "share": 0.6, "seed": 1},),
    axes=dict.fromkeys(("logits", "reference_logits"), "row token") | {"mask": "row", "kl": "row"},
)

# --- token_rewards -------------------------------------------------------------------------------


def _token_rewards_inputs(case: Case, draw: Draw) -> Inputs:
    log_prob, reference = _log_probs(case, draw)
    batch, rule = case["shape"][0], case.get("missing_end")
    options: dict[str, Any] = {
        "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
        "beta": case.get("beta", 0.02),
        "estimator": case.get("estimator", "k1"),
        "missing_end": rule,
    }
    if rule:
        options["ended"] = draw.mask(batch, share=0.5)
    return Inputs(
        {
            "log_prob": log_prob,
            "reference_log_prob": reference,
            "scores": draw.normal(batch, std=3.0),
        },
        options,
    )


def _token_rewards_real(a: dict[str, Any]) -> Inputs:
    log_prob, reference, mask = _real_log_probs(a)
    return Inputs(
        {
            "log_prob": log_prob,
            "reference_log_prob": reference,
            "scores": a["embedded"][:, -1, 0],
        },
        {"mask": mask, "beta": 0.02, "ended": np.array([False]), "missing_end": "penalise"},
    )


def _token_rewards_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    forward, backward = _kl_cost(case, itemsize)
    n, batch = math.prod(case["shape"]), case["shape"][0]
    rule, ended = case.get("missing_end"), {"ended": batch}
    reads = floats(itemsize, log_prob=n, reference_log_prob=n) | {"mask": n}
    return (
        Cost(
            forward.flops + 2 * n,
            reads | floats(itemsize, scores=batch) | (ended if rule else {}),
            floats(itemsize, rewards=n),
        ),
        Cost(
            backward.flops + n,
            # Backward reads it only where the rule takes a score away.
            reads | floats(itemsize, d_rewards=n) | (ended if rule == "replace" else {}),
            backward.writes | floats(itemsize, d_scores=batch),
        ),
    )


_REWARDS_BLOCK = triton_token_rewards.MAX_BLOCK

token_rewards = Twin(
    name="token_rewards",
    forward=core_token_rewards.token_rewards_forward,
    backward=core_token_rewards.token_rewards_backward,
    kernel=triton_token_rewards.token_rewards,
    eager=triton_token_rewards.token_rewards_eager,
    arguments=("log_prob", "reference_log_prob", "scores"),
    results=("rewards",),
    cases=st.fixed_dictionaries(
        {
            "shape": _batches((0, 3), (1, 70), (_REWARDS_BLOCK - 1, 2 * _REWARDS_BLOCK + 5)),
            "gap": st.sampled_from([1.0, 1e-3]),
            "share": st.sampled_from([0.0, 0.001, 0.5, 1.0]),
            "beta": st.sampled_from([0.02, 0.0, 1.0]),
            "estimator": estimators,
            "missing_end": st.sampled_from(core_token_rewards.MISSING_END_RULES),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _REWARDS_BLOCK + 5], "missing_end": "replace", "seed": 1},
        # Most rows' last token lies in an earlier block than the row's end.
        {
            "shape": [5, 3 * _REWARDS_BLOCK], "share": 0.001, "missing_end": "penalise",
            "estimator": "k3", "seed": 2,
        },
        {"shape": [5, 20], "estimator": "k2", "seed": 3},
        {"shape": [9, 20], "missing_end": "replace", "seed": 4},  # Some ended, some did not.
    ),
    inputs=_token_rewards_inputs,
    real=_token_rewards_real,
    shapes={
        "rollout": {"shape": ROLLOUT, "missing_end": "replace"},
        "rollout, k3": {"shape": ROLLOUT, "estimator": "k3", "missing_end": "penalise"},
    },
    cost=_token_rewards_cost,
    studies=(
        {"shape": [3, 40], "share": 1.0, "missing_end": "replace"},
        {"shape": [2, _REWARDS_BLOCK + 5], "share": 1.0, "estimator": "k3"},
        {"shape": [1, 1], "share": 1.0, "missing_end": "penalise"},
    ),
    extremes=(
        {"shape": [4, 3], "missing_end": "replace", "seed": 4},
        {"shape": [2, 3], "estimator": "k3", "missing_end": "penalise"},
    ),
    axes=dict.fromkeys(("log_prob", "reference_log_prob", "mask", "rewards"), "batch time")
    | {"scores": "batch", "ended": "batch"},
    dtypes=("float32",),
)  # fmt: skip

# --- gae -----------------------------------------------------------------------------------------


def _gae_inputs(case: Case, draw: Draw) -> Inputs:
    std = case.get("magnitude", 1.0)
    return Inputs(
        {
            "rewards": draw.normal(*case["shape"], std=std),
            "values": draw.normal(*case["shape"], std=std),
        },
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "gamma": case.get("gamma", 1.0),
            "lam": case.get("lam", 0.95),
        },
    )


def _gae_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    mask = {"mask": n}
    d_results = floats(itemsize, d_advantages=n, d_returns=n) | mask
    # δ (3), the recurrence (2), the returns (1); its transpose and two gradients
    return (
        Cost(
            6 * n,
            floats(itemsize, rewards=n, values=n) | mask,
            floats(itemsize, advantages=n, returns=n),
        ),
        Cost(7 * n, d_results, floats(itemsize, d_rewards=n, d_values=n)),
    )


_GAE_BLOCK = triton_gae.MAX_BLOCK

gae = Twin(
    name="gae",
    forward=core_gae.gae_forward,
    backward=core_gae.gae_backward,
    kernel=triton_gae.gae,
    eager=triton_gae.gae_eager,
    arguments=("rewards", "values"),
    results=("advantages", "returns"),
    cases=st.fixed_dictionaries(
        {
            # Rows of several blocks are slow in eager, so only the corners have them.
            "shape": _batches((0, 3), (1, 70), (100, 300)),
            "magnitude": st.sampled_from([1.0, 1e-3, 1e6]),
            "share": shares,
            "gamma": st.sampled_from([1.0, 0.99, 0.0]),
            "lam": st.sampled_from([0.95, 1.0, 0.0, 0.5]),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _GAE_BLOCK + 5], "gamma": 0.99, "seed": 1},
        # Tokens are so rare that whole blocks are masked.
        {"shape": [4, 2 * _GAE_BLOCK + 1], "share": 0.001, "seed": 2},
        {"shape": [2, _GAE_BLOCK + 1], "share": 1.0, "lam": 1.0, "seed": 3},
    ),
    inputs=_gae_inputs,
    real=lambda a: Inputs(
        {"rewards": a["projected"][0].T[:8], "values": a["embedded"][0].T[:8]},
        {"mask": np.arange(a["embedded"].shape[1])[None] >= 5 * np.arange(8)[:, None]},
    ),
    shapes={
        "rollout": {"shape": ROLLOUT},
        "long episodes": {"shape": [64, 8192], "gamma": 0.99},
        "wide and short": {"shape": [4096, 128]},
    },
    cost=_gae_cost,
    studies=tuple(
        {"shape": shape, "share": 1.0} for shape in ([2, 2 * _GAE_BLOCK + 5], [3, 20], [1, 1])
    ),
    extremes=tuple({"shape": [2, 5], "lam": lam, "gamma": g} for lam, g in ((0.9, 0.9), (0, 1))),
    axes=dict.fromkeys(("rewards", "values", "mask", "advantages", "returns"), "batch time"),
    dtypes=("float32",),
)

# --- whiten --------------------------------------------------------------------------------------


def _whiten_inputs(case: Case, draw: Draw) -> Inputs:
    std = case.get("magnitude", 1.0)
    x = draw.normal(*case["shape"], std=std, mean=case.get("offset", 0.0) * std)
    return Inputs(
        {"x": x},
        {
            "mask": draw.mask(*case["shape"], share=case.get("share", 0.7)),
            "shift_mean": case.get("shift_mean", True),
            "unbiased": case.get("unbiased", True),
        },
    )


def _whiten_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = math.prod(case["shape"])
    # forward: mean (1), centre, square, sum (3), apply (2); backward: two sums (5), apply (6)
    reads = floats(itemsize, x=n) | {"mask": n}
    saved = {"saved": 16}  # the mean and the deviation, in four numbers
    return (
        Cost(6 * n, reads, floats(itemsize, whitened=n)),
        Cost(11 * n, reads | saved | floats(itemsize, d_whitened=n), floats(itemsize, d_x=n)),
    )


_WHITEN_BLOCK = triton_whiten.BLOCK

whiten = Twin(
    name="whiten",
    forward=core_whiten.whiten_forward,
    backward=core_whiten.whiten_backward,
    kernel=triton_whiten.whiten,
    eager=triton_whiten.whiten_eager,
    arguments=("x",),
    results=("whitened",),
    cases=st.fixed_dictionaries(
        {
            "shape": _batches((0, 3), (1, 70), (_WHITEN_BLOCK - 100, _WHITEN_BLOCK + 100)),
            "magnitude": st.sampled_from([1.0, 1e-3, 1e6]),
            "offset": st.sampled_from([0.0, 3.0, 100.0]),
            "share": shares,
            "shift_mean": st.booleans(),
            "unbiased": st.booleans(),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 2 * _WHITEN_BLOCK + 3], "offset": 100.0, "seed": 1},
        {"shape": [2, _WHITEN_BLOCK], "shift_mean": False, "unbiased": False, "seed": 2},
        # They are so close together that ε counts.
        {"shape": [3, 50], "magnitude": 1e-3, "seed": 4},
        # more partial sums than one block of the merge holds, many of them of no element
        {"shape": [triton_whiten.MERGE_BLOCK + 2, _WHITEN_BLOCK], "share": 0.0003, "seed": 3},
    ),
    inputs=_whiten_inputs,
    real=lambda a: Inputs(
        {"x": a["embedded"][0].T},
        {"mask": np.broadcast_to(np.arange(48) >= 8, (a["embedded"].shape[2], 48))},
    ),
    shapes={
        "rollout": {"shape": ROLLOUT},
        "rollout, mean kept": {"shape": ROLLOUT, "shift_mean": False},
        "minibatch": {"shape": [64, 1024]},
    },
    cost=_whiten_cost,
    studies=tuple(
        {"shape": shape, "share": 1.0} for shape in ([3, 900], [2, _WHITEN_BLOCK], [1, 2])
    ),
    extremes=({"shape": [2, 5], "seed": 1}, {"shape": [2, 5], "shift_mean": False}),
    axes=dict.fromkeys(("x", "mask", "whitened"), "batch time"),
    dtypes=("float32",),
    shared_kernels=(column_sum_kernel,),
)  # fmt: skip

TWINS = (kl, exact_kl, token_rewards, gae, whiten)
