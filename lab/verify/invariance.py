"""Batch invariance: a row has the same bits, whatever rows are beside it and however many.

For every twin that declares its rows (`Twin.rows`), under `batch_invariant()`: a case's batch is
computed alone, its first and its last row alone, and with other rows behind it and in front. What
comes of a row must be the same bits each time, and its gradients too.

And for a whole model: positions that go through a cache one by one, beside texts of other lengths,
must have the bits of one pass over their text alone, and so must their log-probabilities.
"""

import dataclasses
import math
from typing import Any

import torch

from ...core.model.presets import GPTConfig
from ...kernels.common import launch
from ...kernels.language.cross_entropy import token_log_probs
from ...kernels.model.decode_step import BoundStep, DecodeStep, StaticKVCache
from ...kernels.model.gpt import GPT
from ...kernels.model.kv_cache import KVCache
from ..twins.draw import RandomArrays, to_torch
from ..twins.find import find_twin
from ..twins.twin import Case, Rows, Twin, as_tuple
from .check import case_inputs, differentiable, same_bits

DECODING = "decoding"
# At least as many rows of numbers are put beside a case's own: more than any tile holds.
BESIDE = 130
# What is added to a case's seed for the rows beside it.
OTHER_SEED = 1_000
# A model of a size that has every kernel's edges: heads of 24 features, 70 positions, and in its
# second layer a window.
MODEL = GPTConfig(vocab_size=61, n_ctx=70, n_layer=2, n_head=2, d_model=48, band=20)
TEMPERATURE = 0.7
STEPS = 4  # positions that go through the cache one by one


@dataclasses.dataclass(frozen=True)
class Found:
    """What one row of the table shows.

    Attributes
    ----------
    name, dtype : str
        The twin, or "decoding".
    n_compared : int
        Tensors whose bits were compared.
    faults : list of str
        What differed, and in which company.
    reason : str
        Why nothing is promised; empty if something is.
    """

    name: str
    dtype: str
    n_compared: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of one call: a batch.

    Attributes
    ----------
    tensors, options : dict
        By name.
    d_results : dict of torch.Tensor
        Gradients of results, by the results' names; empty: no backward.
    """

    tensors: dict[str, torch.Tensor]
    options: dict[str, Any]
    d_results: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)


def check_rows(name: str, dtype: str, device: str, cases: list[Case] | None = None) -> Found:
    """Check a twin's rows.

    Parameters
    ----------
    name, dtype : str
        Of the list, or somebody's own twin.
    device : str
        "cpu" or "cuda".
    cases : list of Case, optional
        Its corners and studies if not given.

    Returns
    -------
    Found
    """
    twin = find_twin(name)
    if isinstance(twin.rows, str):
        return Found(name, dtype, reason=twin.rows)
    n_compared = 0
    faults: list[str] = []
    for case in (*twin.corners, *twin.studies) if cases is None else cases:
        compared, wrong = _check_case(twin, twin.rows, case, dtype, device)
        n_compared, faults = n_compared + compared, faults + wrong
    return Found(name, dtype, n_compared, faults)


def _check_case(
    twin: Twin, rows: Rows, case: Case, dtype: str, device: str
) -> tuple[int, list[str]]:
    """Compare a case's rows in all companies; return how many tensors, and what differed."""
    alone = _call(twin, rows, case, dtype, device)
    other = _call(twin, rows, case | {"seed": case.get("seed", 0) + OTHER_SEED}, dtype, device)
    n, n_other = _count(alone, rows), _count(other, rows)
    if n == 0 or n_other == 0:
        return 0, []
    times = -(-BESIDE // _numbers(other, rows))
    whole, last = slice(0, n), slice(n - 1, n)
    moved = slice(times * n_other, times * n_other + n)
    # what is computed, where the case's rows are in it, and which of them these are
    companies = {
        "alone, the first row": (_taken(alone, rows, slice(0, 1)), slice(0, 1), slice(0, 1)),
        "rows behind": (_joined(alone, [alone, *[other] * times], rows), whole, whole),
    }
    if not rows.by_place(case):
        companies["alone, the last row"] = (_taken(alone, rows, last), slice(0, 1), last)
        companies["rows in front"] = (_joined(alone, [*[other] * times, alone], rows), moved, whole)
    expected = _run(twin, rows, alone)
    faults = []
    for company, (call, place, own) in companies.items():
        found = _run(twin, rows, call)
        differing = [
            result
            for result, x in expected.items()
            if not same_bits(_part(x, result, rows, own), _part(found[result], result, rows, place))
        ]
        if differing:
            faults.append(f"{', '.join(differing)} differ by their company ({company}): {case}")
    return len(companies) * len(expected), faults


def _call(twin: Twin, rows: Rows, case: Case, dtype: str, device: str) -> Call:
    """Draw a case's arguments, and gradients of what comes of them if those are each row's own."""
    inputs = case_inputs(twin, case, None)
    torch_dtype = getattr(torch, dtype)
    tensors = {n: to_torch(x, torch_dtype, device) for n, x in inputs.tensors.items()}
    options = {
        n: to_torch(x, torch_dtype, device) if hasattr(x, "dtype") else x
        for n, x in inputs.options.items()
    }
    call = Call(tensors, options)
    results = _results(twin, call)
    carrying = differentiable(twin, results)
    if any(x.ndim == 0 or name not in rows.axes for name, x in carrying.items()):
        return call
    draw = RandomArrays(case.get("seed", 0) + 1)
    d_results = {n: to_torch(draw.normal(*x.shape), x.dtype, device) for n, x in carrying.items()}
    return dataclasses.replace(call, d_results=d_results)


def _results(twin: Twin, call: Call) -> dict[str, torch.Tensor]:
    with launch.backend("triton"), launch.batch_invariant():
        results = as_tuple(twin.kernel(**call.tensors, **call.options))
    return dict(zip(twin.results, results, strict=False))


def _run(twin: Twin, rows: Rows, call: Call) -> dict[str, torch.Tensor]:
    """Return the results that have rows, and the gradients that have."""
    needs = bool(call.d_results)
    leaves = {n: x.detach().requires_grad_(needs) for n, x in call.tensors.items()}
    results = _results(twin, dataclasses.replace(call, tensors=leaves))
    kept = {n: x.detach() for n, x in results.items() if n in rows.axes and x.ndim > 0}
    wanted = {n: x for n, x in leaves.items() if n in rows.axes and n in twin.arguments}
    if not needs or not wanted:
        return kept
    roots = [results[n] for n in call.d_results]
    with launch.backend("triton"), launch.batch_invariant():
        gradients = torch.autograd.grad(
            roots, list(wanted.values()), list(call.d_results.values()), materialize_grads=True
        )
    return kept | {f"d_{n}": g for n, g in zip(wanted, gradients, strict=True)}


def _having_rows(call: Call, rows: Rows) -> dict[str, torch.Tensor]:
    given = call.tensors | call.options
    return {n: x for n, x in given.items() if n in rows.axes and x is not None}


def _count(call: Call, rows: Rows) -> int:
    """Return how many rows a call has."""
    return min(x.shape[rows.axes[n]] for n, x in _having_rows(call, rows).items())


def _numbers(call: Call, rows: Rows) -> int:
    """Return how many rows of numbers kernels see: positions of a text, heads of a position."""
    return max(math.prod(x.shape[:-1]) for x in _having_rows(call, rows).values())


def _part(x: torch.Tensor, name: str, rows: Rows, some: slice) -> torch.Tensor:
    return x.narrow(rows.axes[name.removeprefix("d_")], some.start, some.stop - some.start)


def _taken(call: Call, rows: Rows, some: slice) -> Call:
    """Return the call of some rows alone."""

    def take(named: dict[str, Any]) -> dict[str, Any]:
        here = {n: x for n, x in named.items() if n in rows.axes and x is not None}
        return named | {n: _part(x, n, rows, some).clone() for n, x in here.items()}

    return Call(take(call.tensors), take(call.options), take(call.d_results))


def _joined(own: Call, calls: list[Call], rows: Rows) -> Call:
    """Return one call with the rows of all; what rows share is `own`'s."""

    def join(kind: str) -> dict[str, Any]:
        shared: dict[str, Any] = getattr(own, kind)
        here = [n for n, x in shared.items() if n in rows.axes and x is not None]
        return shared | {
            n: torch.cat([getattr(call, kind)[n] for call in calls], rows.axes[n]) for n in here
        }

    return Call(join("tensors"), join("options"), join("d_results"))


# --- a whole model --------------------------------------------------------------------------------


def check_decoding(dtype: str, device: str) -> Found:
    """Check that decoding with a cache, in company, gives the bits of a pass over each text alone.

    Parameters
    ----------
    dtype : str
        The model's.
    device : str
        "cpu" or "cuda".

    Returns
    -------
    Found
    """
    model = GPT(MODEL, torch.Generator().manual_seed(0)).to(device, getattr(torch, dtype)).eval()
    draw = torch.Generator().manual_seed(1)
    lengths = (MODEL.n_ctx, MODEL.n_ctx - 3, MODEL.n_ctx // 2)
    texts = [torch.randint(MODEL.vocab_size, (n,), generator=draw).to(device) for n in lengths]
    faults = []
    with launch.backend("triton"), launch.batch_invariant(), torch.no_grad():
        expected = [_states_alone(model, text) for text in texts]
        for kind in (KVCache, StaticKVCache):
            for text, right, state in zip(
                texts, expected, _decoded(model, texts, kind), strict=True
            ):
                if not same_bits(right, state):
                    faults.append(f"{kind.__name__}: the states of a text of {len(text)} tokens")
        # The head's log-probabilities of all texts at once, and of each alone.
        whole = _scores(model, torch.cat(expected), torch.cat(texts))
        apart = [_scores(model, state, text) for state, text in zip(expected, texts, strict=True)]
        if not same_bits(whole, torch.cat(apart)):
            faults.append("log-probabilities of the same states")
    return Found(DECODING, dtype, 2 * len(texts) + 1, faults)


def _states_alone(model: GPT, text: torch.Tensor) -> torch.Tensor:
    """Compute a text's hidden states in one pass: [time, d_model]."""
    return model(text[None])[0]


def _decoded(model: GPT, texts: list[torch.Tensor], kind: type[KVCache]) -> list[torch.Tensor]:
    """Compute the same, texts padded on the left and their last tokens one by one."""
    longest = max(map(len, texts))
    key_start = torch.tensor([longest - len(text) for text in texts], device=texts[0].device)
    tokens = torch.stack(
        [torch.nn.functional.pad(text, (longest - len(text), 0)) for text in texts]
    )
    cache = kind(model.config, len(texts), longest, tokens.device, model.dtype)
    states = [model(tokens[:, :-STEPS], key_start=key_start, cache=cache)]
    step: DecodeStep | BoundStep
    if isinstance(cache, StaticKVCache):
        step = DecodeStep(model, cache, record=False)
    else:
        step = BoundStep(model, cache)
    for i in range(longest - STEPS, longest):
        states.append(step(tokens[:, i])[0][:, None])
    whole = torch.cat(states, 1)  # [text, time, d_model]
    return [whole[i, longest - len(text) :] for i, text in enumerate(texts)]


def _scores(model: GPT, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return token_log_probs(states, model.output_matrix(), tokens, temperature=TEMPERATURE)
