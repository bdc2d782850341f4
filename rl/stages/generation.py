"""Generation: prompts in, tokens and their log-probabilities out; what PPO calls a rollout.

Prompts are padded on the left, go through the model together once (prefill), and then grow by one
token a step from a KV cache (kernels/model/kv_cache.py). A sequence ends at a stop token, which is
still returned, and leaves the computation: it costs nothing more.

    prompts        · · 3 1 4         key_start 2        tokens  1 5 9 2
                   6 5 3 5 8         key_start 0                9 0 · ·     0 is a stop token

Each token's random bits depend on the seed, its prompt's place in the batch and the step alone, so
who else is in the batch, or has left it, changes nothing; the NumPy twin (core/model/generation.py)
draws the same tokens from the same logits.

A `logits_hook` stands between model and draw: it turns each step's states and logits into the
logits that are drawn from, as DIRECTOR's second head does (rl/agents/blenderbot/director.py). What
is spoken then is not the model's own distribution, and neither are the log-probabilities.

Under `batch_invariant` log-probabilities are those of an update's own kernels, to the bit.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from ...core.checks import refuse
from ...core.model.generation import check_generate, pad_left
from ...kernels.common.launch import door
from ...kernels.language.cross_entropy import token_log_probs
from ...kernels.language.sampling import sampling
from ...kernels.model.decode_step import BoundStep, DecodeStep, StaticKVCache
from ...kernels.model.gpt import GPT
from ...kernels.model.kv_cache import KVCache

# (states [row, d_model], logits [row, vocab_size]) -> logits [row, vocab_size]
LogitsHook = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MODEL, HOOK = "model", "hook"

# The cache is copied when sequences leave it. So they leave together, at this share of the batch.
LEAVING_SHARE = 0.25
HALF = 0.5
NOTHING_DRAWN = -1  # as `sampling` says it


class Generation(NamedTuple):
    """What was generated, padded on the right.

    Attributes
    ----------
    tokens : torch.Tensor of int64 [prompt, step]
        0 after a sequence's end.
    log_probs : torch.Tensor of float32 [prompt, step]
        Of each token as `sampling` defines it: before top_k and top_p, in the distribution that
        `log_probs_of` names. 0 after the end.
    lengths : torch.Tensor of int64 [prompt]
        Tokens generated, the stop token included.
    readings : torch.Tensor of float32 [prompt, step] or None
        What `read` made of the state that each token was drawn from. 0 after the end.
    log_probs_of : str
        Whose distribution `log_probs` are of: "model", the model's own, or "hook", what a
        `logits_hook` made of it. Both are at the temperature of the draw. PPO's ratio needs the
        first.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor
    readings: torch.Tensor | None
    log_probs_of: str = MODEL

    def token_lists(self) -> list[list[int]]:
        """Return each prompt's new tokens without the padding.

        Returns
        -------
        list of lists of int
        """
        lengths = self.lengths.tolist()
        return [row[:n] for row, n in zip(self.tokens.tolist(), lengths, strict=True)]


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Sequence[int] = (),
    seed: int = 0,
    rows: Sequence[int] | None = None,
    graphs: bool = False,
    static: bool = False,
    read: Callable[[torch.Tensor], torch.Tensor] | None = None,
    logits_hook: LogitsHook | None = None,
) -> Generation:
    """Continue every prompt; the twin of `gptwin.core.model.generation.generate`.

    Parameters
    ----------
    model : GPT
        Runs in evaluation mode meanwhile.
    prompts : sequence of sequences of int
        At least one token each; lengths may differ.
    max_new_tokens : int
        The most to add to each.
    temperature, top_k, top_p
        As in `sampling`; a temperature of 0 takes the most likely token.
    stop_tokens : sequence of int
        A sequence ends after the first of these.
    seed : int
        Of `sampling`, whose counter is (row, step).
    rows : sequence of int, optional
        Each prompt's number, by which it draws, where these are some of a larger batch; by
        default 0, 1, 2, ...
    graphs : bool
        Decode by steps whose shapes and addresses stay (kernels/model/decode_step.py): on a GPU
        they are recorded as CUDA graphs, one for each halving of the batch.
    static : bool
        Decode by those steps and record none: what graphs save is seen by comparison.
    read : callable, optional
        Turns states [row, d_model] into numbers [row], such as the values of a head on this model.
    logits_hook : callable, optional
        `(states [row, d_model], logits [row, vocab_size]) -> logits [row, vocab_size]`, of each
        step: tokens are drawn from what it returns, and `log_probs` are of that. −inf forbids a
        token. It must treat each row for itself: rows leave as their sequences end.

    Returns
    -------
    Generation

    Raises
    ------
    ValueError
        If a prompt is empty, or with what is to come does not fit into the context; if, on a CPU,
        the model's logits are not finite; if the hook returns another shape; and as in
        `GPT.forward` and `sampling`.
    """
    # Inference mode, since a small model's steps are short enough to feel autograd.
    with in_evaluation_mode(model), torch.inference_mode():
        rollout = _Rollout(
            model,
            prompts,
            max_new_tokens,
            stop_tokens,
            rows,
            {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed},
            static=static or graphs,
            graphs=graphs,
            read=read,
            logits_hook=logits_hook,
        )
        for step in range(max_new_tokens):
            if not rollout.take(step):
                break
        found = rollout.result()
    # Tensors made in inference mode may not take part in a loss, but their copies may.
    readings = None if found.readings is None else found.readings.clone()
    return Generation(
        found.tokens.clone(), found.log_probs.clone(), found.lengths.clone(), readings,
        MODEL if logits_hook is None else HOOK,
    )  # fmt: skip


@contextlib.contextmanager
def in_evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode while the context lasts; then each part into its own again.

    Parameters
    ----------
    model : torch.nn.Module
        Some of whose parts may be in training mode, and others not.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Rollout:
    """A batch being generated: `rows` are the prompts still in the computation."""

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_tokens: Sequence[int],
        numbers: Sequence[int] | None,
        options: dict[str, Any],
        *,
        static: bool,
        graphs: bool,
        read: Callable[[torch.Tensor], torch.Tensor] | None,
        logits_hook: LogitsHook | None,
    ) -> None:
        table = model.wte.weight
        device, n_prompts = table.device, len(prompts)
        padded, starts = (torch.from_numpy(a) for a in pad_left(prompts))
        check_generate(padded, model.config, max_new_tokens)
        self.model = model
        self.options = options
        self.stop = frozenset(stop_tokens)
        self.tokens = torch.zeros(n_prompts, max_new_tokens, dtype=torch.int64, device=device)
        self.log_probs = torch.zeros(n_prompts, max_new_tokens, device=device)
        self.read, self.logits_hook = read, logits_hook
        self.readings = None if read is None else torch.zeros_like(self.log_probs)
        self.lengths = [max_new_tokens] * n_prompts
        self.rows = torch.arange(n_prompts, device=device)
        self.numbers = self.rows if numbers is None else torch.tensor(numbers, device=device)
        self.going = list(range(n_prompts))  # places in `rows` of those that have not ended
        self.drawn = (self.rows, torch.zeros(n_prompts, device=device))
        if n_prompts == 0:
            return
        capacity = padded.shape[1] + max_new_tokens
        kind = StaticKVCache if static else KVCache
        self.cache = kind(model.config, n_prompts, capacity, device, model.dtype)
        self.graphs = graphs
        self.leaving_share = HALF if graphs else LEAVING_SHARE  # each leaving records a graph
        key_start = starts.to(device) if bool((starts > 0).any()) else None
        last = padded.shape[1] - 1
        hidden = model(padded.to(device), key_start=key_start, cache=self.cache, states_from=last)
        self.state = hidden[:, -1]  # [row, d_model]
        self.drawn = self._sample(model.logits(self.state), 0)
        self._prepare_step()

    def _prepare_step(self) -> None:
        """Make what turns a token of each row into the next logits, anew when rows have left."""
        self.decode: DecodeStep | BoundStep
        if isinstance(self.cache, StaticKVCache):
            self.decode = DecodeStep(self.model, self.cache, record=self.graphs)
        else:
            self.decode = BoundStep(self.model, self.cache)

    def _sample(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample a step's tokens: [row] and their log-probabilities."""
        if self.logits_hook is not None:
            given, logits = logits, self.logits_hook(self.state, logits)
            if logits.shape != given.shape:
                expected = f"logits of shape {tuple(given.shape)}, as the model's"
                refuse("logits_hook", expected, f"shape {tuple(logits.shape)}")
        # A prompt draws by its number, so that its tokens do not depend on the other rows.
        tokens, log_probs = sampling(logits, step=step, rows=self.numbers, **self.options)
        if door().batch_invariant and self.logits_hook is None:
            log_probs = self._as_in_training(tokens)
        return tokens, log_probs

    def _as_in_training(self, tokens: torch.Tensor) -> torch.Tensor:
        """Score drawn tokens [row] by the kernels that score them in an update."""
        weight, temperature = self.model.output_matrix(), self.options["temperature"] or 1.0
        scored = token_log_probs(
            self.state, weight, tokens, ignore_index=NOTHING_DRAWN, temperature=temperature
        )
        return scored.masked_fill(tokens == NOTHING_DRAWN, torch.nan)

    def _advance(self, tokens: torch.Tensor, step: int) -> None:
        """Compute the logits that follow tokens [row], and sample from them."""
        self.state, logits = self.decode(tokens)
        self.drawn = self._sample(logits, step)

    def take(self, step: int) -> bool:
        """Store a step's tokens and sample the next; say whether there are any."""
        tokens, log_probs = self.drawn
        # Reading tokens from a GPU waits for it, so they are read only if something may end.
        drawn = tokens.tolist() if tokens.is_cpu or self.stop else []
        if tokens.is_cpu and min(drawn, default=0) < 0:
            refuse(
                "model",
                "finite logits",
                f"none to draw from for prompt {int(self.rows[drawn.index(-1)])} at step {step}",
                "weights that are not finite, or a learning rate that was too high",
            )
        self._store(self.tokens, tokens, step)
        self._store(self.log_probs, log_probs, step)
        if self.read is not None and self.readings is not None and len(self.rows):
            self._store(self.readings, self.read(self.state), step)
        if self.stop:
            tokens = self._without_ended(tokens, drawn, step)
        if step + 1 == self.tokens.shape[1] or not self.going:
            return False
        self._advance(tokens, step + 1)
        return True

    def _store(self, kept: torch.Tensor, new: torch.Tensor, step: int) -> None:
        """Write a step's column. What it writes beyond a sequence's end is never read."""
        column = kept.select(1, step)  # [prompt]
        if len(self.rows) == len(kept):
            column.copy_(new)
        else:
            column[self.rows] = new.to(kept.dtype)

    def _without_ended(self, tokens: torch.Tensor, drawn: list[int], step: int) -> torch.Tensor:
        """Note which sequences end; when enough have, let them leave and return the others'."""
        ended = [place for place in self.going if drawn[place] in self.stop]
        if not ended:
            return tokens
        prompts = self.rows.tolist()
        for place in ended:
            self.lengths[prompts[place]] = step + 1
        self.going = [place for place in self.going if drawn[place] not in self.stop]
        n_ended = len(prompts) - len(self.going)
        if self.going and n_ended > self.leaving_share * len(prompts):
            stay = torch.tensor(self.going, device=tokens.device)
            tokens, self.rows, self.numbers = tokens[stay], self.rows[stay], self.numbers[stay]
            self.going = list(range(len(stay)))
            self.cache.keep(stay)
            self._prepare_step()
        return tokens

    def result(self) -> Generation:
        """Return what was stored, without steps that nobody reached; 0 beyond each end."""
        steps = max(self.lengths, default=0)
        lengths = torch.tensor(self.lengths, dtype=torch.int64, device=self.tokens.device)
        within = torch.arange(steps, device=self.tokens.device) < lengths[:, None]
        tokens, log_probs, readings = (
            None if kept is None else kept[:, :steps].where(within, 0)  # [prompt, steps]
            for kept in (self.tokens, self.log_probs, self.readings)
        )
        assert tokens is not None and log_probs is not None
        return Generation(tokens, log_probs, lengths, readings)
