# ruff: noqa: E501
"""Broken kernels, most of them within what rounding hides: who notices?

    TRITON_INTERPRET=1 python tests/lab/prove/equal/study.py       asks both, and stores breaks.jsonl

Each is one edit of one function. `changes` says whether it changes the function of real numbers;
those that do not are to be proved equal.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Break:
    """One fault: in `function` of kernels/`file`.py, `old` becomes `new`; `twin` is asked."""

    what: str
    file: str
    function: str
    old: str
    new: str
    twin: str
    changes: bool = True


BREAKS = (
    # softmax
    Break("scale times 1.0000002", "layers/softmax", "softmax_forward_kernel",
          "(x - pivot[:, None]) * scale_log2_e", "(x - pivot[:, None]) * (scale_log2_e * 1.0000002)",
          "softmax"),
    Break("the sum plus 1e-9", "layers/softmax", "softmax_forward_kernel",
          "tl.where(total == 0.0, 1.0, total)", "tl.where(total == 0.0, 1.0, total + 1e-9)",
          "softmax"),
    Break("weights below 1e-12 dropped", "layers/softmax", "softmax_forward_kernel",
          "total = tl.sum(exponents, axis=1)",
          "exponents = tl.where(exponents < 1e-12, 0.0, exponents)\n"
          "    total = tl.sum(exponents, axis=1)", "softmax"),
    Break("no rescale of wide rows", "layers/softmax", "softmax_forward_wide_kernel",
          "running_sum * rescale + block_sum", "running_sum + block_sum", "softmax"),
    Break("backward's coupling times 0.9999999", "layers/softmax", "softmax_backward_kernel",
          "(d_p - coupling[:, None]) * scale", "(d_p - coupling[:, None] * 0.9999999) * scale",
          "softmax"),
    Break("pivot half the maximum: the same function", "layers/softmax", "softmax_forward_kernel",
          "pivot = tl.where(row_max == -float(\"inf\"), 0.0, row_max)",
          "pivot = tl.where(row_max == -float(\"inf\"), 0.0, row_max * 0.5)", "softmax",
          changes=False),
    # layer norm
    Break("eps missing", "common/rows", "reciprocal_root",
          "tl.PropagateNan.ALL) + eps)", "tl.PropagateNan.ALL))", "layer_norm"),
    Break("eps outside the root", "common/rows", "reciprocal_root",
          "tl.sqrt_rn(tl.maximum(variance, 0.0, tl.PropagateNan.ALL) + eps)",
          "(tl.sqrt_rn(tl.maximum(variance, 0.0, tl.PropagateNan.ALL)) + 0.5 * eps)",
          "layer_norm"),
    Break("the mean's rest not subtracted: rounding alone", "common/rows", "normalise",
          " - found.mean_rest[:, None]", "", "layer_norm", changes=False),
    Break("the variance over n + 1e-6", "layers/layer_norm", "layer_norm_forward_kernel",
          "variance = tl.sum(distance * distance, axis=1) / n_features",
          "variance = tl.sum(distance * distance, axis=1) / (n_features + 1e-6)", "layer_norm"),
    Break("backward's coupling times 0.9999999", "layers/layer_norm", "layer_norm_backward_kernel",
          "normalised * coupling[:, None]", "normalised * (coupling[:, None] * 0.9999999)",
          "layer_norm"),
    # gelu, linear
    Break("0.044715 is 0.04471498", "layers/gelu", "gate",
          "x * x * x * _CUBIC", "x * x * x * 0.04471498", "gelu"),
    Break("tanh's slope forgets a factor near 1", "layers/gelu", "gate",
          "2.0 * d_u * g * (1.0 - g)", "2.0 * d_u * g * (0.99999997 - g)", "gelu"),
    Break("1/sqrt 2 of seven digits", "layers/gelu", "gate",
          "tl.erf(x * _SQRT_HALF)", "tl.erf(x * 0.7071070)", "gelu"),
    Break("bias times 1 - 2^-23", "layers/linear", "matmul_kernel",
          "bias_tile.to(tl.float32)[None, :]", "(bias_tile.to(tl.float32) * 0.99999988)[None, :]",
          "linear"),
    Break("the residual added before GELU's gate", "layers/linear", "matmul_kernel",
          "accumulator = accumulator * g", "accumulator = accumulator * (g + 1e-9)", "linear"),
    # attention
    Break("the log of the sum plus 1e-8", "attention/attention", "attention_forward_kernel",
          "tl.log2(running_sum)", "tl.log2(running_sum + 1e-8)", "attention"),
    Break("delta times 1.0000002", "attention/attention_backward", "attention_backward_query_kernel",
          "(p * (d_p - delta[:, None]))", "(p * (d_p - delta[:, None] * 1.0000002))", "attention"),
    Break("the rescale clamped at 1e-20", "attention/attention", "attention_forward_kernel",
          "rescale = tl.exp2(running_max * scale_log2_e - pivot)",
          "rescale = tl.maximum(tl.exp2(running_max * scale_log2_e - pivot), 1e-20)", "attention"),
    Break("a key's score lowered by 1e-7", "attention/attention", "attention_forward_kernel",
          "weights = tl.exp2(scores * scale_log2_e - pivot[:, None])",
          "weights = tl.exp2(scores * scale_log2_e - pivot[:, None] - 1e-7 * (keys == 0)[None, :])",
          "attention"),
    # cross-entropy
    Break("the entropy forgets the fall by 1e-7", "language/spans", "merge",
          "(weighted + fell * total)", "(weighted + fell * total * 0.9999999)", "cross_entropy"),
    Break("no min(., 0): rounding alone", "language/spans", "token_scores_merge_kernel",
          "tl.minimum(wanted - maximum - log_total, 0.0, _PROPAGATE)",
          "(wanted - maximum - log_total)", "cross_entropy", changes=False),
    Break("label smoothing of 1e-7", "language/token_scores", "token_scores_d_logits_kernel",
          "tl.where(is_target, 1.0, 0.0)", "tl.where(is_target, 0.9999999, 0.0)", "cross_entropy"),
    # PPO and its kin
    Break("count + 1e-6 for max(count, 1)", "rlhf/ppo_loss", "ppo_loss_scale_kernel",
          "tl.maximum(tl.load(count_ptr), 1.0)", "(tl.load(count_ptr) + 1e-6)", "ppo_loss"),
    Break("<= value_clip is <: equality alone", "rlhf/ppo_loss", "ppo_loss_kernel",
          "tl.abs(change) <= limits.value_clip", "tl.abs(change) < limits.value_clip", "ppo_loss",
          changes=False),
    Break("the error's square times 0.9999999", "rlhf/ppo_loss", "ppo_loss_kernel",
          "tl.maximum(clipped_error * clipped_error, error * error, _PROPAGATE)",
          "tl.maximum(clipped_error * clipped_error, error * error, _PROPAGATE) * 0.9999999",
          "ppo_loss"),
    Break("a dead step decays by 0.9999999", "rlhf/gae", "gae_forward_kernel",
          "decays = tl.where(live, decay, 1.0)", "decays = tl.where(live, decay, 0.9999999)", "gae"),
    Break("the last lane's value without its gain", "rlhf/gae", "gae_backward_kernel",
          "before * value_gain - d_advantages", "before * value_gain - d_advantages * 1.0000001",
          "gae"),
    Break("whitened by sqrt(var) + eps", "rlhf/whiten", "whiten_statistics_kernel",
          "tl.sqrt_rn(variance + _EPSILON)", "(tl.sqrt_rn(variance) + _EPSILON)", "whiten"),
    Break("the merged mean forgets its correction: rounding alone", "rlhf/whiten",
          "whiten_statistics_kernel", "mean += tl.sum(left, axis=0) / divisor", "mean += 0.0",
          "whiten", changes=False),
    Break("KL clamped at 1e-7", "rlhf/exact_kl", "exact_kl_forward_kernel",
          "kl = cross / tl.where(nothing, 1.0, sum_p) - log_p + log_q",
          "kl = cross / tl.where(nothing, 1.0, sum_p) - log_p + log_q + 1e-7", "exact_kl"),
    Break("k2's slope is delta times 1.0000001", "rlhf/kl", "kl_of",
          "slope = delta\n", "slope = delta * 1.0000001\n", "kl"),
    Break("the penalty's beta rounded to 1e-7", "rlhf/token_rewards", "token_rewards_forward_kernel",
          "estimate * beta", "estimate * (beta + 1e-9)", "token_rewards"),
    Break("sigmoid's denominator e + 1.0000001", "rlhf/reward_loss", "reward_loss_forward_kernel",
          "/ (e + 1.0)  #", "/ (e + 1.0000001)  #", "reward_loss"),
    # optimizers
    Break("eps missing", "optimizer/adamw_update", "_update_block",
          "* step.root_correction + step.eps", "* step.root_correction", "adamw"),
    Break("decay after the step", "optimizer/adamw_update", "_update_block",
          "parameter - parameter * (table_float(row, _WEIGHT_DECAY) * step.lr) - update",
          "(parameter - update) * (1.0 - table_float(row, _WEIGHT_DECAY) * step.lr)", "adamw"),
    Break("the norm plus eps taken twice", "optimizer/adamw_update", "_update_block",
          "step.max_norm / (norm + _CLIP_EPS)", "step.max_norm / (norm + 2.0 * _CLIP_EPS)", "adamw"),
    Break("the average's weight moved by 1e-8", "optimizer/ema", "_average",
          "average + difference * weight", "average + difference * (weight - 1e-8)", "ema"),
)  # fmt: skip
