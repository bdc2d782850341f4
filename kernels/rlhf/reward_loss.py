"""The reward model's ranking loss in Triton: every pair of every prompt in one launch.

Mathematics (core/rlhf/reward_loss.py): for the pairs w ≻ l of a prompt, with z = r_w − r_l − m,

    loss = mean over prompts of 1/n · Σ [softplus(−z) + c·(r_w + r_l)²]
    d r_w = weight · (−σ(−z) + 2c·(r_w + r_l)),    d r_l = weight · (+σ(−z) + 2c·(r_w + r_l))

softplus(−z) = max(−z, 0) + log(1 + e) and σ(−z) = e/(1 + e) or 1/(1 + e) share e = exp(−|z|) ≤ 1.
log(1 + e) must keep its digits where e is small (a pair that is ranked well): the GPU's logarithm
does not, so it is 2·artanh(s), s = e/(2 + e) ≤ ⅓, as a series in s².

Tiling. K is at most 64, so a prompt's pairs fit one tile in registers; a program takes as many
prompts as fill TILE elements:

            loser →            Element (i, j) is the pair as completion i sees it: −pull where i
           ┌───────────┐       beat j, +pull where j beat i, 0 on the diagonal, for a tie and for
    winner │ ·  −  −  −│──►    padding. So each pair stands there twice, and a row's sum is the
      ↓    │ +  ·  −  −│──►    whole gradient of a score: no second sum down the columns. Half of
           │ +  +  ·  −│──►    the tile would be masked off otherwise: it costs nothing. The loss
           │ +  +  +  ·│──►    and the counts are taken from the winners' half.
           └───────────┘

One pass. The gradient for a loss of one prompt comes with the loss in the forward launch, since it
needs the same e; what it lacks is a factor d_loss / (number of prompts with a pair), which no
program can know yet. A reduction by one program totals the programs' partial sums and counts, and
backward is one multiplication.

Memory. Forward reads scores and ranks once and writes the gradients once (4 bytes a completion),
with about 140 bytes of partial sums a program. Backward reads and writes 4 bytes a completion.

Deterministic: each element is written by one program, floats are added in one order, and counts
are integers: `tl.histogram` adds them in shared memory with atomics, in any order, and integers
have the same sum in every order. Block sizes are fixed and not tuned, so that the order of addition
is the same on every machine.
"""

import math

import torch

from ...core.checks import expect_finite, refuse
from ...core.rlhf.reward_loss import BIN_EDGES, N_BINS, RewardLoss, check_reward_loss
from ..common._triton import tl, triton
from ..common.approximation import stands_for
from ..common.derivative import first_derivative_only
from ..common.finite import checks_finite
from ..common.indices import signed
from ..common.launch import launch, runs_on_triton
from ..common.strided import block_at, strided
from ..common.widened import at_least_float32

# Elements [prompt, completion, completion] of one program, unless a single prompt has more.
TILE = 1024
# Programs' partial sums that the reduction reads at a time.
BLOCK_PROGRAMS = 64
BLOCK_BACKWARD = 1024

# Inside a kernel a global must be a compile-time constant.
_MINUS_LOG2_E = tl.constexpr(-math.log2(math.e))
_N_BINS = tl.constexpr(N_BINS)
_N_EDGES = tl.constexpr(len(BIN_EDGES))
_BIN_EDGES = tl.constexpr(BIN_EDGES)
# A pair is counted in its bin, 0 to 9, or 16 further on if it is right. 15 is for no pair.
_RIGHT = tl.constexpr(16)
_NO_PAIR = tl.constexpr(15)
_COUNTERS = tl.constexpr(32)


@triton.jit
def _log_1_plus_exactly(e):
    """Return log(1 + e)."""
    return tl.log(1.0 + e)


@stands_for(_log_1_plus_exactly, low=0.0, high=1.0)
@triton.jit
def _log_1_plus(e):
    """Return log(1 + e) of a float32 block, 0 ≤ e ≤ 1, to float32's relative precision."""
    s = e / (e + 2.0)
    q = s * s  # at most 1/9: the first term left out is 1.3e-9 of the first one kept
    series = q * (2 / 15) + (2 / 13)
    series = series * q + (2 / 11)
    series = series * q + (2 / 9)
    series = series * q + (2 / 7)
    series = series * q + (2 / 5)
    series = series * q + (2 / 3)
    return (series * q + 2.0) * s


@triton.jit
def reward_loss_forward_kernel(
    scores,  # Strided [prompt, completion], like the next
    ranks,
    gradients_ptr,  # [prompt, completion] contiguous: of each prompt's own loss
    sums_ptr,  # [3, program]: loss, prompts with a pair, r_w − r_l
    counts_ptr,  # int32 [program, _COUNTERS]
    n_prompts,
    n_completions,
    margin,
    centring,  # None for 0
    PROMPTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Loss, gradients and counts of PROMPTS whole prompts."""
    program = tl.program_id(0)
    prompts = program.to(tl.int64) * PROMPTS + tl.arange(0, PROMPTS)
    completions = tl.arange(0, BLOCK_K).to(tl.int64)
    inside = (prompts < n_prompts)[:, None] & (completions < n_completions)[None, :]

    rank = tl.load(block_at(ranks, prompts, completions), mask=inside, other=-1)
    present = inside & (rank >= 0)  # [PROMPTS, BLOCK_K]
    score = tl.load(block_at(scores, prompts, completions), mask=present, other=0.0)

    # [PROMPTS, BLOCK_K] -> [PROMPTS, BLOCK_K, BLOCK_K]
    own, other = score[:, :, None], score[:, None, :]
    both = present[:, :, None] & present[:, None, :]
    wins = both & (rank[:, :, None] < rank[:, None, :])
    loses = both & (rank[:, :, None] > rank[:, None, :])
    ahead = own - other
    gap = tl.where(loses, -ahead, ahead)  # r_w − r_l, bit for bit the same from either side
    z = gap - margin
    e = tl.exp2(tl.abs(z) * _MINUS_LOG2_E)
    pair_loss = tl.maximum(-z, 0.0) + _log_1_plus(e)
    pull = tl.where(z >= 0, e, 1.0) / (e + 1.0)  # σ(−z)
    gradient = tl.where(wins, -pull, tl.where(loses, pull, 0.0))
    if centring is not None:
        total = own + other
        pair_loss += total * total * centring
        gradient += tl.where(wins | loses, total * centring * 2.0, 0.0)

    n_pairs = tl.sum(tl.sum(wins.to(tl.float32), axis=2), axis=1)  # [PROMPTS]
    weight = 1.0 / tl.maximum(n_pairs, 1.0)
    gradients = tl.sum(gradient, axis=2) * weight[:, None]  # [PROMPTS, BLOCK_K]
    gradients_at = gradients_ptr + prompts[:, None] * n_completions + completions[None, :]
    tl.store(gradients_at, gradients, mask=inside)

    losses = tl.sum(tl.sum(tl.where(wins, pair_loss, 0.0), axis=2), axis=1) * weight
    gaps = tl.sum(tl.sum(tl.where(wins, gap, 0.0), axis=2), axis=1)
    n_programs = tl.num_programs(0).to(tl.int64)
    tl.store(sums_ptr + program, tl.sum(losses, axis=0))
    tl.store(sums_ptr + n_programs + program, tl.sum((n_pairs > 0).to(tl.float32), axis=0))
    tl.store(sums_ptr + 2 * n_programs + program, tl.sum(gaps, axis=0))

    counter = tl.where(wins & (own > other), _RIGHT, 0)
    for k in tl.static_range(_N_EDGES):
        counter += 1 - (tl.abs(gap) < _BIN_EDGES[k]).to(tl.int32)  # NaN goes into the last bin
    counter = tl.where(wins, counter, _NO_PAIR)
    counts = tl.histogram(tl.reshape(counter, [PROMPTS * BLOCK_K * BLOCK_K]), _COUNTERS)
    counts_at = counts_ptr + program.to(tl.int64) * _COUNTERS + tl.arange(0, _COUNTERS)
    tl.store(counts_at, counts)


@triton.jit
def reward_loss_totals_kernel(
    sums_ptr,
    counts_ptr,
    results,  # RewardLoss
    n_ranked_ptr,  # prompts with a pair: backward divides by it
    n_programs,
    BLOCK_PROGRAMS: tl.constexpr,
):
    """Total the programs' partial sums and counts: one program."""
    bins = tl.arange(0, _RIGHT)
    loss = tl.zeros([BLOCK_PROGRAMS], tl.float32)
    n_ranked = tl.zeros([BLOCK_PROGRAMS], tl.float32)
    gap = tl.zeros([BLOCK_PROGRAMS], tl.float32)
    wrong = tl.zeros([BLOCK_PROGRAMS, _RIGHT], tl.int64)
    right = tl.zeros([BLOCK_PROGRAMS, _RIGHT], tl.int64)
    row_stride = tl.cast(n_programs, tl.int64)
    for start in range(0, n_programs, BLOCK_PROGRAMS):
        programs = start + tl.arange(0, BLOCK_PROGRAMS)
        inside = programs < n_programs
        loss += tl.load(sums_ptr + programs, mask=inside, other=0.0)
        n_ranked += tl.load(sums_ptr + row_stride + programs, mask=inside, other=0.0)
        gap += tl.load(sums_ptr + 2 * row_stride + programs, mask=inside, other=0.0)
        counts_at = counts_ptr + programs.to(tl.int64)[:, None] * _COUNTERS + bins[None, :]
        counted = inside[:, None] & (bins < _N_BINS)[None, :]
        wrong += tl.load(counts_at, mask=counted, other=0).to(tl.int64)
        right += tl.load(counts_at + _RIGHT, mask=counted, other=0).to(tl.int64)

    bin_right = tl.sum(right, axis=0)  # [_RIGHT]
    bin_pairs = tl.sum(wrong, axis=0) + bin_right
    n_pairs = tl.sum(bin_pairs, axis=0).to(tl.float32)
    n_right = tl.sum(bin_right, axis=0).to(tl.float32)
    ranked = tl.sum(n_ranked, axis=0)
    tl.store(results.loss, tl.sum(loss, axis=0) / tl.maximum(ranked, 1.0))
    tl.store(results.accuracy, n_right / tl.maximum(n_pairs, 1.0))
    tl.store(results.n_pairs, n_pairs)
    tl.store(results.mean_margin, tl.sum(gap, axis=0) / tl.maximum(n_pairs, 1.0))
    tl.store(results.bin_pairs + bins, bin_pairs.to(tl.float32), mask=bins < _N_BINS)
    tl.store(results.bin_right + bins, bin_right.to(tl.float32), mask=bins < _N_BINS)
    tl.store(n_ranked_ptr, ranked)


@triton.jit
def reward_loss_backward_kernel(
    gradients_ptr,
    d_loss_ptr,
    n_ranked_ptr,
    d_scores_ptr,
    n_elements,
    BLOCK: tl.constexpr,
):
    """Scale the gradients of the prompts' own losses to that of their mean."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    scale = tl.load(d_loss_ptr) / tl.maximum(tl.load(n_ranked_ptr), 1.0)
    gradients = tl.load(gradients_ptr + at, mask=inside, other=0.0)
    tl.store(d_scores_ptr + at, gradients * scale, mask=inside)


def reward_loss_forward(
    scores: torch.Tensor, ranks: torch.Tensor, margin: float, centring: float
) -> tuple[RewardLoss, torch.Tensor, torch.Tensor]:
    """Launch the forward kernel and the reduction for checked arguments.

    Parameters
    ----------
    scores, ranks, margin, centring
        As in `reward_loss`.

    Returns
    -------
    results : RewardLoss
        As in `reward_loss`.
    gradients : torch.Tensor [prompt, completion]
        Of each prompt's own loss.
    n_ranked : torch.Tensor []
        Number of prompts with a pair, over which the loss is the mean.
    """
    n_prompts, n_completions = scores.shape
    block = triton.next_power_of_2(max(n_completions, 2))
    prompts = max(1, TILE // block**2)
    n_programs = triton.cdiv(n_prompts, prompts)
    device = scores.device
    gradients = torch.empty(scores.shape, dtype=torch.float32, device=device)
    sums = torch.empty(3, n_programs, dtype=torch.float32, device=device)
    counts = torch.empty(n_programs, _COUNTERS.value, dtype=torch.int32, device=device)
    shapes: tuple[tuple[int, ...], ...] = ((), (), (), (), (N_BINS,), (N_BINS,), ())
    *parts, n_ranked = (torch.empty(s, dtype=torch.float32, device=device) for s in shapes)
    results = RewardLoss(*parts)
    launch(
        reward_loss_forward_kernel,
        (n_programs,),
        *(strided(scores), strided(ranks), gradients, sums, counts, n_prompts, n_completions),
        *(margin, centring if centring > 0 else None),
        PROMPTS=prompts,
        BLOCK_K=block,
        num_warps=4 if block < 64 else 8,  # 8 or 16 elements a thread
    )
    launch(
        reward_loss_totals_kernel,
        (1,),
        *(sums, counts, results, n_ranked, n_programs),
        BLOCK_PROGRAMS=BLOCK_PROGRAMS,
    )
    return results, gradients, n_ranked


def reward_loss_backward(
    gradients: torch.Tensor, n_ranked: torch.Tensor, d_loss: torch.Tensor
) -> torch.Tensor:
    """Launch the backward kernel.

    Parameters
    ----------
    gradients, n_ranked
        From `reward_loss_forward`.
    d_loss : torch.Tensor []
        Gradient of the loss.

    Returns
    -------
    torch.Tensor [prompt, completion]
        Gradient with respect to `scores`.
    """
    d_scores = torch.empty_like(gradients)
    n = gradients.numel()
    launch(
        reward_loss_backward_kernel,
        (triton.cdiv(n, BLOCK_BACKWARD),),
        *(gradients, d_loss, n_ranked, d_scores, n),
        BLOCK=BLOCK_BACKWARD,
    )
    return d_scores


class _RewardLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, ranks, margin, centring):
        results, gradients, n_ranked = reward_loss_forward(scores, ranks, margin, centring)
        ctx.save_for_backward(gradients, n_ranked)
        ctx.mark_non_differentiable(*results[1:])
        return tuple(results)

    @staticmethod
    @first_derivative_only("reward_loss")
    def backward(ctx, d_loss, *_):
        return reward_loss_backward(*ctx.saved_tensors, d_loss), None, None, None


def reward_loss(
    scores: torch.Tensor, ranks: torch.Tensor, *, margin: float = 0.0, centring: float = 0.0
) -> RewardLoss:
    """Compute the ranking loss of a batch; the twin of `gptwin.core.rlhf.reward_loss.reward_loss`.

    Parameters
    ----------
    scores : torch.Tensor [prompt, completion]
        The reward model's scores: float32, any strides; at most 64 completions.
    ranks : torch.Tensor of int [prompt, completion]
        Place of each completion in its prompt's ranking: smaller is better, equal is a tie, and
        negative means that there is no completion. Any strides.
    margin : float
        The better one must be ahead by more than this; finite, at least 0. One for all pairs.
    centring : float
        Weight of (r_w + r_l)², inside the same mean over a prompt's pairs; finite, at least 0.

    Returns
    -------
    RewardLoss
        The loss, and accuracy, n_pairs, mean_margin, bin_pairs, bin_right, which carry no
        gradient. All float32; a count is exact up to 2^24.

    Raises
    ------
    ValueError
        If a shape, a dtype, a device, `margin` or `centring` is wrong, or, where that is checked
        (kernels/common/finite.py), a score that is there is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_reward_loss(scores, ranks, margin, centring)
    ranks = signed(ranks)
    on_triton = runs_on_triton("reward_loss", scores=scores, ranks=ranks)
    if checks_finite(scores):
        expect_finite("scores", scores, ranks >= 0)
    if not on_triton:
        return reward_loss_eager(scores, ranks, margin=margin, centring=centring)
    if scores.dtype != torch.float32:
        refuse("scores", "dtype float32", f"dtype {scores.dtype}", "scores not cast: .float()")
    return RewardLoss(*_RewardLoss.apply(scores, ranks, float(margin), float(centring)))


@at_least_float32
def reward_loss_eager(
    scores: torch.Tensor, ranks: torch.Tensor, *, margin: float = 0.0, centring: float = 0.0
) -> RewardLoss:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Returns
    -------
    RewardLoss
        As in `reward_loss`, in the dtype of `scores`.
    """
    present = ranks >= 0
    scores = torch.where(present, scores, 0)
    wins = present[:, :, None] & present[:, None, :] & (ranks[:, :, None] < ranks[:, None, :])
    gap = scores[:, :, None] - scores[:, None, :]  # [prompt, winner, loser]
    # Not softplus: PyTorch's drops exp(−x) where x is above 20.
    # A completion and itself may be ∞ − ∞ apart, and 0 · NaN would be their gradient.
    pair_loss = -torch.nn.functional.logsigmoid(torch.where(wins, gap, 0) - margin)
    if centring:
        pair_loss = pair_loss + centring * (scores[:, :, None] + scores[:, None, :]) ** 2
    n_per_prompt = wins.sum(dim=(1, 2))
    losses = torch.where(wins, pair_loss, 0).sum(dim=(1, 2)) / n_per_prompt.clamp(min=1)
    loss = losses.sum() / (n_per_prompt > 0).sum().clamp(min=1)

    with torch.no_grad():
        right = wins & (scores[:, :, None] > scores[:, None, :])
        n_pairs = wins.sum()
        at_least_1 = n_pairs.clamp(min=1)
        edges = torch.tensor(BIN_EDGES, dtype=gap.dtype, device=gap.device)
        bins = torch.bucketize(gap.abs(), edges, right=True)
        return RewardLoss(
            loss,
            right.sum().to(gap.dtype) / at_least_1,
            n_pairs.to(gap.dtype),
            torch.where(wins, gap, 0).sum() / at_least_1,
            *(
                torch.bincount(bins[pairs], minlength=N_BINS).to(gap.dtype)
                for pairs in (wins, right)
            ),
        )
