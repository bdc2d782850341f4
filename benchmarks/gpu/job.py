"""Inside a part's process: does the part, and reports each event to the one that watches."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...lab.processes import end_with_parent
from ...lab.twins.find import find_twin
from .end_to_end.generation import generation
from .end_to_end.phases import Makers, end_to_end
from .end_to_end.training import training
from .operations.calibration import calibration
from .operations.cells import Event, Measurement
from .operations.clock import the_clock
from .operations.ready import ready
from .operations.results import (
    CALIBRATION,
    END_TO_END,
    HOPPER,
    INVARIANCE,
    READY,
    not_measured,
    parts_of_name,
)
from .operations.roofline import measure_roofline
from .verification import verify, verify_batch_invariance, verify_hopper

# Loads generation and PPO's makers from the pipeline, which two parts alone need.
Workloads = Callable[[], Mapping[str, Callable[..., Any]]]


def run_job_of_json(arguments: str, workloads: Workloads) -> None:
    """Do a job, as supervise.py asked for it, and write its events.

    Parameters
    ----------
    arguments : str
        JSON.
    workloads : callable
        Returns a dict by part; see `makers`.
    """
    job = json.loads(arguments)
    end_with_parent(job["parent"])
    with open(job["progress"], "a", encoding="utf-8") as progress:
        for event in events(job, workloads):
            progress.write(line_of(event) + "\n")
            progress.flush()
        progress.write(json.dumps({"end": True}) + "\n")


def line_of(event: Event) -> str:
    """Write an event; a finding with a figure that is no finite number has failed.

    A result file has no word for such a figure, and the others of its part are to be stored.
    """
    try:
        return json.dumps(event, allow_nan=False)
    except ValueError:
        name = event["finding"]["name"]
        about = parts_of_name(name)
        failed = not_measured(name, "failed", "a figure is no finite number", **about)
        return json.dumps({"finding": failed})


def events(job: Mapping[str, Any], workloads: Workloads) -> Iterator[Event]:
    """Yield the events of a job."""
    part, dry_run = job["part"], job["dry_run"]
    device = "cpu" if dry_run else "cuda"
    if part.startswith("verify/"):
        yield from verify(part.partition("/")[2], dry_run, device if job["quick"] else None)
        return
    if part == READY:
        yield from ready(device)
        return
    if part == INVARIANCE:
        yield from verify_batch_invariance(dry_run)
        return
    if part == HOPPER:
        yield from verify_hopper()
        return
    clock = None if job["compile_only"] else the_clock(dry_run)
    if part == CALIBRATION:
        yield from calibration(device)
    elif part == "roofline":
        assert clock is not None
        yield {"begin": [part]}
        for found in measure_roofline(clock, device, tiny=dry_run):
            yield {"finding": found}
    elif part == "training":
        yield from training(
            clock, device, job["peaks"], tiny=dry_run, only=frozenset(job["only"]),
            done=frozenset(job["done"]),
        )  # fmt: skip
    elif part in END_TO_END:
        yield {"begin": [part]}
        yield from end_to_end(
            makers(part, workloads(), device, tiny=dry_run), device, tiny=dry_run,
            compile_only=job["compile_only"], only=frozenset(job["only"]),
            done=frozenset(job["done"]), given_up=frozenset(job["given_up"]),
        )  # fmt: skip
    else:
        operation, _, dtype = part.partition("/")
        yield from Measurement(
            find_twin(operation), dtype, clock, device, peaks=job["peaks"], dry_run=dry_run,
            only=frozenset(job["only"]), done=frozenset(job["done"]),
            given_up=frozenset(job["given_up"]), sizes=frozenset(job["sizes"]),
        ).run()  # fmt: skip


def makers(
    part: str, workloads: Mapping[str, Callable[..., Any]], device: str, *, tiny: bool
) -> Makers:
    """Return what makes a part's workloads.

    Parameters
    ----------
    part : str
        "generation" or "ppo".
    workloads : dict
        By part: what generates, and what makes PPO's workloads for a device and a size.
    device : str
    tiny : bool
    """
    if part == "generation":
        return generation(workloads[part], device, tiny=tiny)
    return workloads[part](device, tiny=tiny)
