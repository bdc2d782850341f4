"""A kernel against the one that it was before: two drivers, the same unknowns, equal results.

Each driver makes its tensors with PyTorch's random numbers, launches and returns results, as for
`gptwin sanitize file.py::kernel`. What is drawn is unknown, the same in both: they draw alike.
"""

import time

import numpy as np
import torch

from ....core.checks import refuse
from ....kernels.common import launch, plain
from ...pretend.gpu import pretend_gpu
from ...sanitize.drivers import DriverTarget, find_drivers, load
from .algebra import number as n
from .algebra.number import NotFollowedError, Number
from .cases import Outcome, following
from .evaluation.evaluate import Machine
from .evaluation.memory import Memory, OutOfBoundsError
from .explain import Difference, differences
from .proofs import Proof

# Configurations of an autotuned kernel that are tried.
CONFIGURATIONS = 3
_SEED = 0


class _Refactoring(Proof):
    """The proof of a pair: nothing is listed that would have to be reached."""

    @property
    def unreached(self) -> list[str]:
        """List nothing."""
        return []

    @property
    def n_variants(self) -> int:
        """Count what was launched."""
        return len(set().union(*(outcome.reached for outcome in self.outcomes)))


def prove_refactoring(old: str, new: str, seeds: int) -> Proof:
    """Prove that two kernels' drivers return the same functions of what they draw.

    Parameters
    ----------
    old, new : str
        file.py::kernel, each with a driver.
    seeds : int
        How many fields it is tried in.

    Returns
    -------
    Proof

    Raises
    ------
    ValueError
        If a file has several drivers and none is named.
    """
    plain.watch_plain_launches()
    proof = _Refactoring(f"{old} {new}", seeds)
    with launch.evaluating():
        drivers = [_driver(target) for target in (old, new)]
    for configuration in range(CONFIGURATIONS):
        for seed in range(seeds):
            proof.outcomes.append(_compare(drivers, configuration, seed))
        if configuration + 1 >= _n_configurations(proof):
            break
    return proof


def _n_configurations(proof: Proof) -> int:
    """Count the longest list of configurations that a launched kernel has."""
    names = {name for outcome in proof.outcomes for name, _ in outcome.reached}
    kernels = (plain.launched[name] for name in names if name in plain.launched)
    return max((len(getattr(kernel, "configs", ())) for kernel in kernels), default=1)


def _driver(target: str) -> DriverTarget:
    path, _, kernel = target.partition("::")
    module = load(path, compiled=True)
    found = find_drivers(module, path, kernel, None)
    if len(found) > 1:
        refuse(target, "one driver to be compared", ", ".join(found), "write file.py::kernel")
    return DriverTarget(module, found[0])


def _compare(drivers: list[DriverTarget], configuration: int, seed: int) -> Outcome:
    """Run both drivers on the same unknowns, and compare by name."""
    outcome = Outcome({"configuration": configuration}, seed)
    started, run, machine = time.process_time(), n.begin(seed), Machine(Memory())
    try:
        old, new = (_results(driver, machine, outcome, seed) for driver in drivers)
        if list(old) != list(new):
            shapes = tuple(old), tuple(new)
            raise NotFollowedError(f"results named {shapes[0]} and {shapes[1]}")
        for name, tensor in new.items():
            if (one := _difference(name, old[name], tensor, machine)) is not None:
                outcome.differences.append(one)
            outcome.n_elements += tensor.numel()
    except (NotFollowedError, NotImplementedError) as error:
        outcome.error = f"not followed: {error}"
    except OutOfBoundsError as error:
        outcome.error = str(error)
    outcome.degree, outcome.counts = run.degree, dict(run.counts)
    outcome.decisions, outcome.trips = machine.decisions, machine.trips
    outcome.programs, outcome.seconds = machine.programs, time.process_time() - started
    return outcome


def _results(
    driver: DriverTarget, machine: Machine, outcome: Outcome, seed: int
) -> dict[str, torch.Tensor]:
    """Run a driver; the random numbers begin anew, and so do the unknowns."""
    torch.manual_seed(_SEED)
    np.random.seed(_SEED)  # noqa: NPY002
    n.run.field.random.bit_generator.state = np.random.default_rng([seed, 1]).bit_generator.state
    with following(machine), pretend_gpu(compiled=True):
        with launch.configuration(outcome.case["configuration"]), launch.recording() as log:
            named = driver.driver()
    outcome.reached |= {(entry.kernel, entry.configuration) for entry in log}
    return {name: value.detach() for name, value in driver.named(named).items()}


def _difference(
    name: str, old: torch.Tensor, new: torch.Tensor, machine: Machine
) -> Difference | None:
    if old.shape != new.shape:
        return Difference.of_shapes(name, old.shape, new.shape)
    if not new.is_floating_point():
        same = old.numpy() == new.numpy()
        return None if same.all() else Difference.of_integers(name, old.numpy(), new, same)
    wanted: Number = machine.memory.read(old)
    return differences(name, wanted, machine.memory.read(new), machine.memory, new)
