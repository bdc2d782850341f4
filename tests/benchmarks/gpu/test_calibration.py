"""What a calibration makes of ticks, and what the model makes of a calibration."""

import numpy as np
import pytest

from gptwin.benchmarks.gpu.operations import calibration
from gptwin.lab.predict import measured
from gptwin.lab.predict.machines import GUESS, MEASURED, TABLE, with_measured


def test_numbers_from_ticks():
    cycles = np.array([8.0 * 8 * calibration.TURNS * calibration.UNROLLED] * 3)  # of 8 warps
    assert calibration.hmma_of(cycles) == 8
    assert calibration.clock_of(cycles, cycles / 1.7) == pytest.approx(1.7e9)
    bytes_read = 10 * calibration.READS * calibration.READ_BYTES
    assert calibration.l2_of(0.001, 10, 2e9) == pytest.approx(bytes_read / 2e6)


def test_without_a_gpu_every_number_says_so():
    events = list(calibration.calibration("cpu"))
    found = [event["finding"] for event in events[1:]]
    assert [one["name"] for one in found] == list(calibration.NUMBERS)
    assert {one["status"] for one in found} == {"skipped"}
    assert {*measured.NAMES} <= {*calibration.NUMBERS}


def test_what_was_measured_takes_the_place_of_what_was_guessed(tmp_path):
    file = tmp_path / "measured.json"
    assert measured.read(file) == {}
    measured.write("sm_90", {"l2": 5500.0, "clock": 1.7e9, "phase": 1.1}, "an H200", file)
    table = with_measured(TABLE, measured.read(file))
    l2 = {arch: n for n in table if n.name == "l2" for arch in n.values}
    assert (l2["sm_90"].values["sm_90"], l2["sm_90"].kind) == (5500, MEASURED)
    assert l2["sm_90"].source == "an H200"
    assert l2["sm_80"] == next(n for n in TABLE if n.name == "l2" and "sm_80" in n.values)
    launches = [n for n in table if n.name == "launch_seconds"]
    assert [(n.kind, set(n.values)) for n in launches] == [(GUESS, {"sm_80", "sm_90"})]
    measured.write("sm_90", {"launch_seconds": 2e-6}, "an H200", file)
    halves = [n for n in with_measured(TABLE, measured.read(file)) if n.name == "launch_seconds"]
    assert [(n.kind, set(n.values)) for n in halves] == [(GUESS, {"sm_80"}), (MEASURED, {"sm_90"})]
    with pytest.raises(ValueError, match="numbers: expected"):
        measured.write("sm_90", {"phase": 1.1}, "an H200", file)
