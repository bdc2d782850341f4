"""What is told of estimates: words, rankings within the error, pictures, and the report."""

import dataclasses
import json
from xml.etree import ElementTree

import pytest

from gptwin.lab.inspect.sass import loops
from gptwin.lab.predict.console import shares, told
from gptwin.lab.predict.machines import MACHINES, machine
from gptwin.lab.predict.picture import legend, picture
from gptwin.lab.predict.predict import Call, Row, ahead
from gptwin.lab.predict.timeline import timeline
from gptwin.lab.report.predicted import read_predictions

from .assembled import loop_of, op

ABOUT = {"arch": "sm_90", "operation": "gelu", "dtype": "bfloat16", "shape": "x",
         "direction": "forward"}  # fmt: skip
CALL = Call(**ABOUT, seconds=2e-5, least_seconds=1e-5, limit="memory", device="H100")


def row(configuration, seconds, **more):
    times = None if seconds is None else (seconds, seconds, seconds)
    return Row(**ABOUT, launch=0, kernel="gelu_forward_kernel", configuration=configuration,
               options={}, seconds=times, **more)  # fmt: skip


def drawn():
    program = loop_of(*[op("MUFU.EX2 R1, R2", write=0)] * 3, op("FADD R3, R1, R1", wait=1))
    for line, i in enumerate(program, start=1):
        i.file, i.line = "/x/gptwin/kernels/layers/gelu.py", line
    found = timeline(program, loops(program)[0], MACHINES["sm_90"], blocks=1, warps=4)
    return json.loads(json.dumps(dataclasses.asdict(found)))


def test_a_configuration_is_ahead_by_more_than_the_error_or_not_at_all():
    assert ahead([row(0, 1e-5)]) == ""
    assert ahead([row(0, 1.3e-5), row(1, 1e-5)]) == "configuration 1 is ahead, 1.30x"
    close = ahead([row(0, 1.1e-5), row(1, 1e-5), row(2, 2e-5)])
    assert close.startswith("no configuration is ahead by 1.2x") and close.endswith("behind: 2")
    on_ampere = [dataclasses.replace(row(n, s), arch="sm_80") for n, s in ((0, 1.25e-5), (1, 1e-5))]
    assert ahead(on_ampere).startswith("no configuration is ahead by 1.3x")
    assert ahead([row(0, 1e-5), row(1, None)]) == "one configuration alone could be estimated"


def test_a_call_is_told_beside_the_roofline():
    words = "gelu forward, bfloat16, x: about 20 µs; H100's roofline allows 10 µs (memory), 50% of "
    assert told(CALL) == words + "the estimate"
    unknown = dataclasses.replace(CALL, seconds=None)
    assert told(unknown).endswith("x: H100's roofline allows 10 µs (memory)")
    assert "declares no cost" in told(dataclasses.replace(CALL, least_seconds=None))
    assert shares({"xu": 0.5, "alu": 0.7, "fp32": 0.01}) == "alu 70%, xu 50%"
    with pytest.raises(ValueError, match="arch: expected one of sm_90, sm_80, whose pipes"):
        machine("sm_100")


def test_the_picture_has_a_lane_for_each_pipe_and_a_line_for_each_block():
    stored = drawn()
    svg = ElementTree.fromstring(picture(stored))
    lanes = [text.text for text in svg.findall("text")]
    assert {"issue", "xu", "fp32", "shared"} & set(lanes) >= {"issue", "xu"}
    titles = [title.text for title in svg.iter("title")]
    assert any("kernels/layers/gelu.py:1 " in title for title in titles)
    first = legend(stored)[0]
    assert first["where"] == "kernels/layers/gelu.py:1" and first["pipes"].startswith("xu 8")


def test_the_report_reads_what_was_stored(tmp_path):
    path = tmp_path / "predict.jsonl"
    assert read_predictions(path) == ({}, {})
    slow, fast = row(0, 2e-5), dataclasses.asdict(row(1, 1e-5, busy={"xu": 0.5}))
    lines = [
        {"triton": "3.8.0"},
        {"kind": "launch", **dataclasses.asdict(slow)},
        {"kind": "launch", **fast, "timeline": drawn()},
        {"kind": "call", **dataclasses.asdict(CALL)},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    document, found = read_predictions(path)
    assert document["triton"] == "3.8.0" and found["gelu"].calls == [told(CALL)]
    (launch,) = found["gelu"].launches
    assert launch.configuration == "1" and launch.busy == "xu 50%" and launch.svg.startswith("<svg")
    path.write_text('{}\n{"kind": "call"}')
    with pytest.raises(ValueError, match="results: expected a file that gptwin predict --json"):
        read_predictions(path)
