"""`gptwin bench` on a GPU, without one: tiny sizes, a clock that counts. No test asserts a time."""

import json

from gptwin.benchmarks.gpu.cells import Measurement, default_dtypes
from gptwin.benchmarks.gpu.clock import CountingClock
from gptwin.benchmarks.gpu.shapes import tiny_shapes
from gptwin.lab.twins import TWINS

PEAKS = {"copy": 1e9, "bfloat16": 1e12, "float32": 1e12, "datasheet": None}


def run(name, clock=None, **options):
    twin = TWINS[name]
    options = {"dry_run": True, "peaks": PEAKS} | options
    measurement = Measurement(
        twin, default_dtypes(twin)[0], clock or CountingClock(), "cpu", **options
    )
    return list(measurement.run())


def findings(events):
    return {event["finding"]["name"]: event["finding"] for event in events if "finding" in event}


def test_every_size_direction_and_provider_is_a_cell():
    events = run("gelu")
    found = findings(events)
    assert set(found) == {
        f"{shape} | {direction} | {provider}"
        for shape in tiny_shapes(TWINS["gelu"])
        for direction in ("forward", "backward", "both")
        for provider in ("gptwin", "eager", "torch.compile")
    }
    for cell in found.values():
        assert cell["status"] == "measured", cell["reason"]
        assert cell["gate"]["truth"] == "NumPy float64" and cell["gate"]["share"] <= 4
        assert cell["roofline"]["share"] < 1 and cell["flops"] > 0 and cell["bytes"] > 0
        assert json.loads(json.dumps(cell)) == cell
    begun = {name for event in events for name in event.get("begin", [])}
    assert begun == set(found)
