"""The twin of the reward model's loss, over rankings."""

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import reward_loss as core_reward_loss
from ....kernels.rlhf import reward_loss as triton_reward_loss
from ..strategies import any_inputs, sizes
from ..twin import Case, Cost, Draw, Inputs, Twin, floats


def _reward_loss_inputs(case: Case, draw: Draw) -> Inputs:
    shape = (case["prompts"], case["completions"])
    scores = draw.normal(*shape, std=case.get("magnitude", 1.0))
    if case.get("coarse"):
        # Equal scores are 0, so that the rounding that measures noise keeps them equal.
        scores = scores * (abs(scores) > 0.7 * case.get("magnitude", 1.0))
    places = (
        draw.normal(*shape).argsort(-1).argsort(-1)
    )  # Each prompt has a permutation of 0, 1, ...
    # Neighbouring places tie, and some completions are not there.
    places = places // case.get("tied", 1)
    present = draw.mask(*shape, share=case.get("present", 1.0))
    options = {
        "ranks": (places + 1) * present - 1,
        "margin": case.get("margin", 0.0),
        "centring": case.get("centring", 0.0),
    }
    return Inputs({"scores": scores}, options)


def _few_wide_tiles(case: Case) -> Case:
    """Keep the prompts few where each takes a program: the interpreter runs one at a time."""
    return case if case["completions"] <= 17 else case | {"prompts": min(case["prompts"], 5)}


def _reward_loss_real(activations: dict[str, np.ndarray]) -> Inputs:
    """Nine completions a prompt: the residual stream's first numbers, ranked by the last ones."""
    states = activations["residual"][0]  # [time, d_model]
    ranks = states[:, -9:].argsort(-1).argsort(-1)
    return Inputs({"scores": states[:, :9]}, {"ranks": ranks, "centring": 0.01})


def _reward_loss_cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    n = case["prompts"] * case["completions"]
    n_pairs = n * (case["completions"] - 1) // 2
    numbers = dict.fromkeys(("loss", "accuracy", "n_pairs", "mean_margin"), 4)
    bins = dict.fromkeys(("bin_pairs", "bin_right"), 4 * core_reward_loss.N_BINS)
    # a pair: difference, margin, exp, log (4), sum (2), counts (4); then σ (2) and two sums
    return (
        Cost(1 + 13 * n_pairs, floats(itemsize, scores=n) | {"ranks": 8 * n}, numbers | bins),
        # saved: the gradient, but for its factor, and a count
        Cost(1 + 9 * n_pairs, {"saved": 4 * n + 4, "d_loss": 4}, floats(itemsize, d_scores=n)),
    )


_CONTRACTS = {
    "reward_loss_forward_kernel": """
        scores[n_prompts, n_completions]; ranks[n_prompts, n_completions]
        gradients_ptr[n_prompts, n_completions]; n_completions <= BLOCK_K
        sums_ptr[3, cdiv(n_prompts, PROMPTS)]; counts_ptr[cdiv(n_prompts, PROMPTS), _COUNTERS]
        grid[cdiv(n_prompts, PROMPTS)]
    """,
    "reward_loss_totals_kernel": """
        sums_ptr[3, n_programs]; counts_ptr[n_programs, _COUNTERS]; n_programs <= MOST_COUNTED
        results.loss[1]; results.accuracy[1]; results.n_pairs[1]; results.mean_margin[1]
        results.bin_pairs[_N_BINS]; results.bin_right[_N_BINS]; n_ranked_ptr[1]
    """,
    "reward_loss_backward_kernel": """
        gradients_ptr[n_elements]; d_loss_ptr[1]; n_ranked_ptr[1]; d_scores_ptr[n_elements]
        grid[cdiv(n_elements, BLOCK)]
    """,
}

reward_loss = Twin(
    name="reward_loss",
    forward=core_reward_loss.reward_loss_forward,
    backward=core_reward_loss.reward_loss_backward,
    kernel=triton_reward_loss.reward_loss,
    eager=triton_reward_loss.reward_loss_eager,
    arguments=("scores",),
    results=core_reward_loss.RewardLoss._fields,
    statistics=core_reward_loss.RewardLoss._fields[1:],
    cases=st.fixed_dictionaries(
        {
            "prompts": sizes((0, 3), (1, 70)),
            "completions": sizes((0, 3), (2, 17), (18, 64)),
            "present": st.sampled_from([1.0, 0.7, 0.1]),
            "tied": st.sampled_from([1, 2, 64]),
            "coarse": st.booleans(),
            "margin": st.sampled_from([0.0, 0.5, 3.0]),
            "centring": st.sampled_from([0.0, 0.01, 1.0]),
            "magnitude": st.sampled_from([1.0, 0.01, 30.0, 1e6]),
            **any_inputs,
        }
    ).map(_few_wide_tiles),
    corners=(
        {"prompts": 9, "completions": 9, "present": 0.7, "tied": 2, "centring": 0.01, "seed": 1},
        {"prompts": 300, "completions": 2, "margin": 0.5, "coarse": True, "seed": 2},
        {
            "prompts": 67,
            "completions": 17,
            "present": 0.7,
            "seed": 3,
        },  # It takes more than 64 programs.
        {"prompts": 3, "completions": 64, "present": 0.7, "margin": 1.0, "seed": 4},
        {"prompts": 5, "completions": 4, "tied": 64, "seed": 5},  # There are ties alone.
        # One bin has more pairs than float16 counts: a mutant that counted so survived.
        {"prompts": 5, "completions": 64, "magnitude": 0.01, "seed": 7},
    ),
    inputs=_reward_loss_inputs,
    real=_reward_loss_real,
    shapes={
        "64 prompts, K = 4": {"prompts": 64, "completions": 4},
        "64 prompts, K = 9": {"prompts": 64, "completions": 9, "centring": 0.01},
        "512 comparisons": {"prompts": 512, "completions": 2, "centring": 0.01},
        "512 prompts, K = 17": {"prompts": 512, "completions": 17, "centring": 0.01},
        "512 prompts, K = 64": {"prompts": 512, "completions": 64, "centring": 0.01},
    },
    cost=_reward_loss_cost,
    contracts=_CONTRACTS,
    studies=(
        {"prompts": 40, "completions": 9, "centring": 0.01},
        {"prompts": 70, "completions": 2, "margin": 0.5},
        {"prompts": 2, "completions": 20},
    ),
    extremes=(
        {"prompts": 3, "completions": 4, "present": 0.7, "centring": 0.1},
        {"prompts": 2, "completions": 18, "present": 0.7},
    ),
    rows="the loss is a mean over the whole batch, and so is each gradient's share of it",
    axes=dict.fromkeys(("scores", "ranks"), "prompt completion")
    | dict.fromkeys(("bin_pairs", "bin_right"), "bin"),
    # Up to 2016 pairs of a prompt are summed, and the terms of the mean margin cancel.
    roundings=16.0,
    dtypes=("float32",),
)
