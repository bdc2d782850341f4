"""The RLHF objective's kernels, broken on purpose: see ../test_by_hand.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "C(K, 2) pairs whatever the ties": (
        "reward_loss",
        "float32",
        "kernels/rlhf/reward_loss.py",
        "weight = 1.0 / tl.maximum(n_pairs, 1.0)",
        "weight = 2.0 / tl.maximum(n_pairs * 0.0 + n_completions * (n_completions - 1), 1.0)",
    ),
    "average and parameter weighted the wrong way round": (
        "ema",
        "float32",
        "kernels/optimizer/ema.py",
        "from_average = average + difference * weight",
        "from_average = average + difference * decay",
    ),
    "k3 as a difference near 0": (
        "kl",
        "float32",
        "kernels/rlhf/kl.py",
        "small = tl.abs(delta) < 0.5",
        "small = tl.abs(delta) < 0.0",
    ),
    "exact KL without its rescale": (
        "exact_kl",
        "float32",
        "kernels/rlhf/exact_kl.py",
        "(cross + sum_p * (rise_p - rise_q)) * rescale",
        "(cross + sum_p * (rise_p - rise_q))",
    ),
    "the score on the row's end instead of the response's": (
        "token_rewards",
        "float32",
        "kernels/rlhf/token_rewards.py",
        "estimate, _ = kl_of(delta, ESTIMATOR)\n"
        "        last = tl.max(tl.where(live, time, -1), axis=0)",
        "estimate, _ = kl_of(delta, ESTIMATOR)\n"
        "        last = tl.max(tl.where(inside, time, -1), axis=0)",
    ),
    "γλ over masked tokens too": (
        "gae",
        "float32",
        "kernels/rlhf/gae.py",
        "decays = tl.where(live, decay, 1.0)\n        gains = value",
        "decays = tl.where(live, decay, decay)\n        gains = value",
    ),
    "biased and unbiased variance swapped": (
        "whiten",
        "float32",
        "kernels/rlhf/whiten.py",
        "n_all - 1.0 if UNBIASED else n_all",
        "n_all if UNBIASED else n_all - 1.0",
    ),
    "the better of the clipped and the unclipped term": (
        "ppo_loss",
        "float32",
        "kernels/rlhf/ppo_loss.py",
        "policy_binds = clipped > unclipped\n    policy_loss = tl.where",
        "policy_binds = clipped < unclipped\n    policy_loss = tl.where",
    ),
    "temperature forgotten in backward": (
        "linear_ppo_loss",
        "float32",
        "kernels/language/token_scores.py",
        "d_log_prob_ptr + rows, mask=counts, other=0.0) * inverse_temperature",
        "d_log_prob_ptr + rows, mask=counts, other=0.0)",
    ),
}
