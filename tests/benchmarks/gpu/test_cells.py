"""`gptwin bench gpu`, without one: tiny sizes, a clock that counts. No test asserts a time."""

import dataclasses
import json
import sys
import types

import pytest
import torch

from gptwin.benchmarks.gpu.operations import cells, peers_attention
from gptwin.benchmarks.gpu.operations.cells import Measurement, default_dtypes
from gptwin.benchmarks.gpu.operations.clock import CountingClock, DeviceClock, Timing
from gptwin.benchmarks.gpu.operations.gate import find_truth, run
from gptwin.benchmarks.gpu.operations.providers import COMMON, Provider, providers
from gptwin.benchmarks.gpu.operations.roofline import DATASHEET, roofline_of
from gptwin.benchmarks.gpu.operations.shapes import shapes, tiny_shapes
from gptwin.benchmarks.inputs import draw_arguments
from gptwin.benchmarks.timing import GateError, Skipped
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.twin import Cost

PEAKS = {"copy": 1e9, "bfloat16": 1e12, "float32": 1e12, "datasheet": None}


def measure(name, clock=None, **options):
    twin = TWINS[name]
    options = {"dry_run": True, "peaks": PEAKS} | options
    return list(
        Measurement(twin, default_dtypes(twin)[0], clock or CountingClock(), "cpu", **options).run()
    )


def findings(events):
    return {event["finding"]["name"]: event["finding"] for event in events if "finding" in event}


def test_every_size_direction_and_provider_is_a_cell():
    events = measure("gelu")
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


def test_an_operation_without_a_backward_pass_has_one_direction():
    found = findings(measure("kl", only=frozenset({"gptwin"})))
    assert {cell["direction"] for cell in found.values()} == {"forward", "backward", "both"}
    found = findings(measure("ema", only=frozenset({"gptwin"})))
    assert {cell["direction"] for cell in found.values()} == {"forward"}
    assert all(cell["status"] == "measured" for cell in found.values())


def test_cells_that_are_done_are_not_measured_again():
    first = findings(measure("gelu", only=frozenset({"gptwin"})))
    left = "gpt2 mlp | backward | gptwin"
    again = findings(measure("gelu", only=frozenset({"gptwin"}), done=frozenset(first) - {left}))
    assert list(again) == [left]


def test_every_size_is_a_case_of_its_twin():
    for twin in TWINS.values():
        for case in (*shapes(twin).values(), *tiny_shapes(twin).values()):
            forward, backward = twin.cost(case, 2)
            assert forward.bytes > 0
            assert (backward is None) == (twin.backward is None)


def test_who_was_given_up_fails_at_once(monkeypatch):
    monkeypatch.setattr(cells, "find_truth", lambda arguments: None)
    found = findings(measure("gelu", only=frozenset({"eager"}), given_up=frozenset({"eager"})))
    assert len(found) == 3 * len(tiny_shapes(TWINS["gelu"]))
    for cell in found.values():
        assert cell["reason"] == "TimeoutError: cut off at another size"


# --- the gate ------------------------------------------------------------------------------------


def with_provider(monkeypatch, make, name="other", yardstick=False, clock=None):
    """Measure gelu by one more provider; return its cells."""
    extra = Provider(name, make, yardstick)
    monkeypatch.setattr(cells, "providers", lambda operation: (*COMMON[:1], extra))
    found = findings(measure("gelu", clock))
    return [cell for cell in found.values() if cell["provider"] == name]


def test_a_wrong_result_is_not_timed(monkeypatch):
    clock = CountingClock()

    def wrong(arguments, compiler):
        return lambda x, **_: 1.1 * x

    for cell in with_provider(monkeypatch, wrong, clock=clock):
        assert cell["status"] == "failed" and cell["value"] is None
        assert cell["reason"].startswith("gate: result:")
    assert clock.calls == 3 * len(tiny_shapes(TWINS["gelu"]))  # gptwin's alone


def test_a_wrong_gradient_is_not_timed(monkeypatch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, approximate):
            return TWINS["gelu"].eager(x, approximate=approximate)

        @staticmethod
        def backward(ctx, d_result):
            return d_result, None

    def wrong(arguments, compiler):
        return lambda x, approximate: Wrong.apply(x, approximate)

    for cell in with_provider(monkeypatch, wrong):
        assert cell["status"] == "failed" and cell["reason"].startswith("gate: d_x:")


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_element_that_is_no_number_is_not_timed(monkeypatch, poison):
    def spoilt(arguments, compiler):
        def operation(x, **options):
            result = arguments.twin.eager(x, **options)
            return torch.where(torch.arange(x.numel()).view_as(x) == 3, poison, result)

        return operation

    for cell in with_provider(monkeypatch, spoilt):
        assert cell["status"] == "failed" and "gate: result: inf times" in cell["reason"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ImportError("No module named 'x'", name="x"), "skipped", "not installed (x)"),
        (Skipped("takes no mask"), "skipped", "takes no mask"),
        (torch.OutOfMemoryError("out of memory"), "failed", "OutOfMemoryError: out of memory"),
        (RuntimeError("no kernel\nmore"), "failed", "RuntimeError: no kernel"),
    ],
)
def test_a_provider_that_raises_is_recorded_with_its_reason(monkeypatch, error, status, reason):
    def broken(arguments, compiler):
        raise error

    for cell in with_provider(monkeypatch, broken):
        assert (cell["status"], cell["reason"]) == (status, reason)


def test_a_yardstick_has_no_gate(monkeypatch):
    def another(arguments, compiler):
        return lambda x, **_: x + 1

    for cell in with_provider(monkeypatch, another, yardstick=True):
        assert cell["status"] == "measured" and cell["gate"] is None


def test_attention_head_by_head_is_attention():
    """The eager truth of long sequences is computed piece by piece."""
    twin = TWINS["attention"]
    for case in (
        {"batch": 2, "head": 4, "kv_head": 2, "queries": 9, "d_head": 8, "causal": True},
        {"batch": 2, "head": 2, "queries": 9, "d_head": 8, "padding": 0.5, "minus_inf": True},
        {"batch": 1, "head": 2, "queries": 9, "d_head": 8, "documents": [3, 6], "causal": True},
    ):
        arguments = draw_arguments(twin, case, "float32", "cpu")
        pieces = run(arguments, twin.eager)
        whole = run(arguments, lambda **given: twin.eager(**given))
        assert pieces.keys() == whole.keys()
        for name in whole:
            torch.testing.assert_close(pieces[name], whole[name])


def test_attentions_masks_mean_the_same_to_flex_attention():
    """Its backward pass needs a GPU; forward is compared here."""
    twin = dataclasses.replace(TWINS["attention"], backward=None)
    for name, case in tiny_shapes(twin).items():
        if case.get("dropout") or case.get("minus_inf"):
            continue
        arguments = draw_arguments(twin, case, "float32", "cpu")
        with torch.no_grad():
            operation = peers_attention.flex_attention(arguments, "eager")
            output = arguments.forward(operation)["output"]
            expected = arguments.forward(twin.eager)["output"]
        torch.testing.assert_close(output, expected, msg=name)


class FlashAttention:
    """What flash-attn 2 promises of the functions that are called, in eager PyTorch."""

    @staticmethod
    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False,
                        window_size=(-1, -1)):  # fmt: skip
        window = None if window_size == (-1, -1) else window_size[0] + 1
        given = (x.transpose(1, 2) for x in (q, k, v))
        output, _ = TWINS["attention"].eager(
            *given, scale=softmax_scale, causal=causal, window=window
        )
        return output.transpose(1, 2)

    @staticmethod
    def flash_attn_with_kvcache(
        q, k_cache, v_cache, k=None, v=None, cache_seqlens=None, softmax_scale=None, causal=False,
        window_size=(-1, -1),
    ):  # fmt: skip
        assert causal and cache_seqlens.dtype == torch.int32
        window = None if window_size == (-1, -1) else window_size[0] + 1
        given = (x.transpose(1, 2) for x in (q, k_cache, v_cache))
        output, _ = TWINS["decode_attention"].eager(
            *given, cache_seqlens, scale=softmax_scale, window=window
        )
        return output.transpose(1, 2)


@pytest.mark.parametrize("name", ["attention", "decode_attention"])
def test_flash_attn_is_called_in_its_own_layout(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "flash_attn", FlashAttention)
    found = findings(measure(name, only=frozenset({"flash-attn"}))).values()
    reasons = {cell["reason"] for cell in found if cell["status"] == "skipped"}
    assert reasons <= {"takes no key_start", "takes no cu_seqlens", "drops other weights"}
    measured = [cell for cell in found if cell["status"] != "skipped"]
    assert len(measured) >= 4 and {cell["status"] for cell in measured} == {"measured"}


def test_without_room_for_a_truth_nothing_is_timed(monkeypatch):
    twin = dataclasses.replace(TWINS["gelu"], cost=lambda case, size: (Cost(10**12, {}, {}),) * 2)
    arguments = draw_arguments(twin, {"shape": [2, 2]}, "bfloat16", "cpu")
    monkeypatch.setattr(
        type(arguments), "as_dtype", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError())
    )
    with pytest.raises(GateError, match="no room for a truth"):
        find_truth(arguments)


# --- the clock and the roofline ------------------------------------------------------------------


class Impossible:
    """A clock by which everything takes no time."""

    def time(self, call):
        return Timing([1e-15] * 3, 0.0, None)


def test_a_figure_above_the_peak_is_rejected():
    found = findings(measure("gelu", Impossible(), only=frozenset({"gptwin"})))
    for cell in found.values():
        assert cell["status"] == "rejected" and "times the measured peak" in cell["reason"]


H100 = DATASHEET["NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize(
    ("seconds", "n_bytes", "datasheet", "label", "rejected"),
    [
        (1e-3, 3e9, H100, None, False),  # at the peak
        (0.95e-3, 3e9, H100, "above the measured peak", False),  # the datasheet allows it
        (0.5e-3, 3e9, H100, "above the measured peak", True),
        (0.95e-3, 3e9, None, "above the measured peak", True),  # nobody knows the device
        (0.5e-6, 3e6, H100, "cache-resident", False),
    ],
)
def test_what_the_device_cannot_do_is_labelled_or_rejected(
    seconds, n_bytes, datasheet, label, rejected
):
    peaks = {"copy": 3e12, "bfloat16": 8e14, "datasheet": datasheet}
    cost = Cost(0, {"x": int(n_bytes)}, {})
    found = roofline_of(cost, seconds, peaks, "bfloat16", cache_bytes=50 * 2**20)
    assert found["label"] == label and bool(found["rejected"]) is rejected
    assert found["bound"] == "bytes"


class StandIn:
    """What DeviceClock uses of torch.cuda, with a device that takes a millisecond a call."""

    def __init__(self):
        self.log, self.now, self.held = [], 0.0, 1000

        class Event:
            def __init__(event, enable_timing):
                assert enable_timing

            def record(event):
                self.log.append("event")
                event.at = self.now

            def elapsed_time(event, end):
                return end.at - event.at

        self.Event = Event

    def get_device_properties(self, index):
        return types.SimpleNamespace(L2_cache_size=2**20)

    def synchronize(self):
        self.log.append("wait")

    def memory_allocated(self):
        return self.held

    def reset_peak_memory_stats(self):
        self.peak = self.held

    def max_memory_allocated(self):
        return self.peak

    def call(self):
        self.log.append("call")
        self.now += 1.0
        self.peak = self.held + 77


def test_the_clock_flushes_brackets_and_waits():
    device = StandIn()
    clock = DeviceClock(device, "cpu")
    clock.flush = types.SimpleNamespace(zero_=lambda: device.log.append("flush"))
    timing = clock.time(device.call)
    assert timing.seconds == pytest.approx([1e-3] * 100)  # 0.1 s of device time
    assert timing.extra_bytes == 77
    assert not timing.launch_bound
    assert device.log[-401:-1] == ["flush", "event", "call", "event"] * 100
    assert device.log[-1] == "wait"


def test_a_call_that_takes_longer_to_launch_than_to_run_is_marked():
    assert Timing([1e-6], 5e-6, None).launch_bound
    assert not Timing([1e-3], 5e-6, None).launch_bound


def test_everybody_is_named_once():
    for name in TWINS:
        names = [provider.name for provider in providers(name)]
        assert len(set(names)) == len(names) and names[0] == "gptwin"
