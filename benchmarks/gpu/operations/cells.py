"""One operation's cells: every size, provider and direction, each behind the gate.

What is yielded is what the process that watches over this one (driver.py) must know: which cells
are begun, so that it can name them if this process dies or hangs in them, and what was found.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ....lab.twins.twin import Case, Cost, Twin
from ...inputs import Arguments, Operation, Tensors, draw_arguments
from ...timing import Finding, Skipped, describe, spread
from .clock import Call, Clock, Timing
from .gate import PEERS, Truth, expect_right, find_truth
from .providers import Provider, providers
from .results import DIRECTIONS, OURS, cell_name, is_ours, not_measured
from .roofline import Peaks, rate_of_matmuls, roofline_of
from .shapes import is_sweep, shapes, tiny_shapes

Event = dict[str, Any]


class Measurement:
    """One operation in one dtype.

    Parameters
    ----------
    twin : Twin
    dtype : str
    clock : Clock or None
        None: run everything once and time nothing, so that all is compiled.
    device : str
    peaks : dict or None
        The roofline; see roofline.py.
    dry_run : bool
        Tiny sizes, no compiler.
    only : collection of str
        Names of providers; empty for all.
    done : collection of str
        Names of cells that need not be measured.
    given_up : collection of str
        Providers that hung at another size: they fail at once.
    sizes : collection of str
        Names of sizes; empty for all.
    """

    def __init__(
        self,
        twin: Twin,
        dtype: str,
        clock: Clock | None,
        device: str,
        *,
        peaks: Peaks | None = None,
        dry_run: bool = False,
        only: frozenset[str] = frozenset(),
        done: frozenset[str] = frozenset(),
        given_up: frozenset[str] = frozenset(),
        sizes: frozenset[str] = frozenset(),
    ) -> None:
        self.sizes = sizes
        self.given_up = given_up
        self.twin, self.dtype, self.clock, self.device = twin, dtype, clock, device
        self.peaks, self.dry_run, self.done = peaks, dry_run, done
        self.providers = [p for p in providers(twin.name) if not only or p.name in only]
        self.compiler = "aot_eager" if dry_run else "inductor"
        cuda = device == "cuda"
        self.cache = torch.cuda.get_device_properties(0).L2_cache_size if cuda else 0

    def run(self) -> Iterator[Event]:
        """Yield events, size by size."""
        chosen = tiny_shapes if self.dry_run else shapes
        for shape, case in chosen(self.twin).items():
            if not self.sizes or shape in self.sizes:
                yield from self._shape(shape, case)

    def _shape(self, shape: str, case: Case) -> Iterator[Event]:
        """Yield the events of one size."""
        directions = directions_of(self.twin)
        todo = {
            provider.name: names
            for provider in timed_at(self.twin, shape, self.providers)
            if self.clock or provider.compiles
            if (names := self._left(shape, directions, provider))
        }
        if not todo:
            return
        yield {"begin": [name for names in todo.values() for name in names.values()]}
        torch.manual_seed(0)
        arguments = truth = None
        try:
            arguments = draw_arguments(self.twin, case, self.dtype, self.device)
            truth = find_truth(arguments) if self.clock else None
        except Exception as error:
            reason = f"no truth: {describe(error)}"
            for left, names in todo.items():
                for direction, name in names.items():
                    about = {"shape": shape, "case": case, "provider": left}
                    found = not_measured(name, "failed", reason, direction=direction, **about)
                    yield {"finding": found}
            return
        for provider in self.providers:
            if provider.name in todo:
                yield {"begin": list(todo[provider.name].values())}
                yield from self._provider(provider, shape, arguments, truth, todo[provider.name])
                free(self.device)

    def _left(self, shape: str, directions: tuple[str, ...], provider: Provider) -> dict[str, str]:
        """Return the names of a provider's cells that are still to be measured, by direction."""
        names = {direction: cell_name(shape, direction, provider.name) for direction in directions}
        return {direction: name for direction, name in names.items() if name not in self.done}

    def _provider(
        self,
        provider: Provider,
        shape: str,
        arguments: Arguments,
        truth: Truth | None,
        names: dict[str, str],
    ) -> Iterator[Event]:
        """Send one provider through the gate and time it in every direction."""
        about = {"shape": shape, "case": arguments.case, "provider": provider.name}
        status, reason = "failed", ""
        left = dict(names)
        try:
            if provider.name in self.given_up:
                raise TimeoutError("cut off at another size")
            operation = provider.make(arguments, self.compiler)
            gate = self._pass_gate(provider, operation, arguments, truth)
            for direction, name in names.items():
                if self.clock is None:
                    continue
                timing = self.clock.time(prepare(direction, operation, arguments))
                del left[direction]
                yield {"finding": self._finding(
                    name, timing, arguments.case, direction, gate, about
                )}  # fmt: skip
            return
        except ImportError as error:
            status, reason = "skipped", describe(error)
        except Skipped as error:
            status, reason = "skipped", str(error)
        except Exception as error:  # whatever a provider raises is what is found
            reason = describe(error)
        for direction, name in left.items():
            yield {"finding": not_measured(name, status, reason, direction=direction, **about)}

    def _pass_gate(
        self, provider: Provider, operation: Operation, arguments: Arguments, truth: Truth | None
    ) -> dict[str, Any] | None:
        """Compare forward and backward with the truth, or only compile them if there is none."""
        results = arguments.forward(operation)
        found: Tensors = {name: x.detach() for name, x in results.items()}
        if arguments.has_backward:
            roots = arguments.roots(results)
            found |= arguments.backward(roots, arguments.cotangents(roots))
        if truth is None or provider.yardstick:
            return None
        ours = provider.name.partition(",")[0] == OURS
        budgets = 1.0 if ours else PEERS
        return {"truth": truth.how, "share": expect_right(arguments, truth, found, budgets)}

    def _finding(
        self,
        name: str,
        timing: Timing,
        case: Case,
        direction: str,
        gate: dict[str, Any] | None,
        about: Mapping[str, Any],
    ) -> Finding:
        """Make the finding of a cell that was timed."""
        cost = None
        if "cost" not in self.twin.undeclared:
            cost = cost_of(self.twin, case, self.dtype, direction)
        value = spread(timing.seconds)
        seconds = value["median"]
        roofline, status, reason = None, "measured", None
        if self.peaks is not None and cost is not None:
            matmul = rate_of_matmuls(self.dtype, case)
            roofline = roofline_of(cost, seconds, self.peaks, matmul, self.cache)
            if reason := roofline.pop("rejected"):
                status = "rejected"
        return {
            "name": name, "status": status, "reason": reason, "direction": direction, **about,
            "unit": "seconds", "value": value, "samples": len(timing.seconds),
            "host_seconds": timing.host_seconds, "launch_bound": timing.launch_bound,
            "extra_bytes": timing.extra_bytes,
            "flops": cost and cost.flops, "bytes": cost and cost.bytes,
            "flops_per_s": cost and cost.flops / seconds,
            "bytes_per_s": cost and cost.bytes / seconds,
            "roofline": roofline, "gate": gate,
        }  # fmt: skip


def free(device: str) -> None:
    """Give back what a provider held.

    It raises where a kernel has left the device broken, as an address that is not there does: this
    process is then of no use to anybody, and driver.py goes on with another.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def directions_of(twin: Twin) -> tuple[str, ...]:
    """Return the directions that a twin is measured in."""
    return DIRECTIONS if twin.backward is not None else DIRECTIONS[:1]


def timed_at(twin: Twin, shape: str, everyone: Iterable[Provider]) -> list[Provider]:
    """Return those providers that are timed at a size."""
    return [p for p in everyone if p.sweeps or not is_sweep(twin.name, shape)]


def cost_of(twin: Twin, case: Case, dtype: str, direction: str) -> Cost:
    """Return a direction's cost; of both, the sum."""
    forward, backward = twin.cost(case, getattr(torch, dtype).itemsize)
    if direction == "forward" or backward is None:
        return forward
    if direction == "backward":
        return backward
    return forward + backward


def prepare(direction: str, operation: Operation, arguments: Arguments) -> Call:
    """Return the call that is timed.

    Parameters
    ----------
    direction : str
        "backward" runs the same backward pass again and again; "both" each time a new graph.
    operation : callable
    arguments : Arguments
    """
    if direction == "forward":
        return lambda: arguments.forward(operation)
    roots = arguments.roots(arguments.forward(operation))
    cotangents = arguments.cotangents(roots)
    if direction == "backward":
        return functools.partial(arguments.backward, roots, cotangents, again=True)

    def both() -> Tensors:
        return arguments.backward(arguments.roots(arguments.forward(operation)), cotangents)

    return both  # `roots` and their graph are gone


def default_dtypes(twin: Twin) -> tuple[str, ...]:
    """Return what a twin is measured in: bfloat16 where it takes it; AdamW as nanoGPT runs it."""
    if twin.name in ("adamw", "ema"):
        return ("float32",)
    return ("bfloat16",) if "bfloat16" in twin.dtypes else ("float32",)


def failures(findings: list[Finding]) -> list[Finding]:
    """Return gptwin's own cells that have no figure, but for those that were skipped."""
    bad = ("failed", "rejected")
    return [f for f in findings if f["status"] in bad and is_ours(f)]
