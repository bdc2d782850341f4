"""Generation and PPO on a GPU, tried without one: what is compared before anything is timed."""

import json
import types

import pytest
import torch

from gptwin.benchmarks.gpu.end_to_end import generation, phases
from gptwin.benchmarks.gpu.operations.cells import failures
from gptwin.benchmarks.gpu.operations.results import cell_name, not_measured, parts_of_name
from gptwin.benchmarks.timing import GateError
from gptwin.kernels.model.decode_step import StaticKVCache
from gptwin.rl.stages import ppo
from gptwin.rl.studies import workloads

WAYS = ("gptwin", "gptwin, static step", "gptwin, CUDA graphs", "eager")
PEERS = ("transformers", "transformers, static cache")


def cells(makers, **options):
    events = list(phases.end_to_end(makers, "cpu", tiny=True, **options))
    return {e["finding"]["name"]: e["finding"] for e in events if "finding" in e}


def test_phases_are_summed_and_a_failure_is_told():
    def run(mark):
        for phase in ("roll out", "update", "roll out"):
            mark(phase)
        return 6

    def not_here():
        raise NotImplementedError("needs a GPU")

    good = types.SimpleNamespace(settings={"batch": 1}, run=run, gate=lambda: {"x": (1, 1, 0.0)})
    wrong = types.SimpleNamespace(settings={}, run=run, gate=lambda: {"x": (1.1, 1.0, 0.01)})
    found = cells(
        {
            "4 | do | good": lambda: good, "4 | do | wrong": lambda: wrong,
            "4 | do | bad": lambda: 1 / 0, "4 | do | not here": not_here,
            "4 | do | done": lambda: 1 / 0, "5 | do | hung": lambda: 1 / 0,
        },
        done=frozenset({"4 | do | done"}),
        given_up=frozenset({"hung"}),
    )  # fmt: skip
    timed = found["4 | do | good"]
    assert {name: x["median"] for name, x in timed["phases"].items()} == {
        "roll out": 2.0, "update": 1.0,
    }  # fmt: skip
    assert timed["value"]["median"] == 2.0  # tokens a second
    assert timed["gate"] == {"truth": "eager float32", "tolerances": {"x": 0.0}}
    others = {f["provider"]: (f["status"], f["reason"]) for f in found.values() if f is not timed}
    assert others == {
        "wrong": ("failed", "gate: 4 | do | wrong: x: differs by 0.1, allowed are 0.01"),
        "bad": ("failed", "ZeroDivisionError: division by zero"),
        "not here": ("skipped", "needs a GPU"),
        "hung": ("failed", "TimeoutError: cut off at another size"),
    }


def test_whatever_is_gptwins_own_counts_as_a_failure():
    """Also with CUDA graphs, and where a process died, whose cells are known by name alone."""
    names = ("4 | iteration | gptwin, CUDA graphs", "4 | iteration | eager", "gptwin, compiled",
             "nanoGPT")  # fmt: skip
    found = [not_measured(name, "failed", "died", **parts_of_name(name)) for name in names]
    assert [f["name"] for f in failures(found)] == [names[0], names[2]]


# --- generation ----------------------------------------------------------------------------------


def test_everyones_generation_goes_through_the_gate():
    pytest.importorskip("transformers")
    found = cells(generation.generation(workloads.WORKLOADS["generation"], "cpu", tiny=True))
    assert set(found) == {
        cell_name(size.name, "generate", who)
        for size in generation.TINY_SIZES
        for who in (*WAYS, *PEERS)
    }
    for cell in found.values():
        assert cell["status"] == "measured", cell["reason"]
        assert cell["unit"] == "tokens/s" and list(cell["phases"]) == ["generate"]
        assert json.loads(json.dumps(cell)) == cell
        own = cell["provider"].startswith("gptwin")
        assert set(cell["gate"]["tolerances"]) == {"log_probs", *(["tokens"] if own else [])}
        is_recorded = cell["settings"].get("cuda_graphs")
        assert is_recorded == (generation.NOT_RECORDED if "graphs" in cell["provider"] else None)


def test_a_position_that_lags_behind_is_not_timed(monkeypatch):
    """As a graph would have it that froze the first step's."""
    begin = StaticKVCache.begin

    def lagging(cache, n_new, key_start):
        position = begin(cache, n_new, key_start)
        return position if cache.n_new else position.clamp(max=5)

    monkeypatch.setattr(StaticKVCache, "begin", lagging)
    makers = generation.generation(workloads.WORKLOADS["generation"], "cpu", tiny=True)
    found = cells(makers, only=frozenset({"gptwin"}))
    for cell in found.values():
        if cell["provider"] == "gptwin":
            assert cell["status"] == "measured", cell["reason"]
        else:
            assert cell["status"] == "failed" and "log_probs: differs by" in cell["reason"]


def test_other_tokens_than_the_plain_ways_are_not_timed():
    size = generation.TINY_SIZES[1]
    scene = generation.Scene(workloads.WORKLOADS["generation"], size, "cpu", True)
    way = generation.gptwin(scene, graphs=True)
    scene.plain = torch.zeros(1, size.new_tokens, dtype=torch.int64)
    with pytest.raises(GateError, match="tokens: differs"):
        phases.check("gptwin, CUDA graphs", way)


# --- PPO -----------------------------------------------------------------------------------------


def test_an_iteration_names_its_phases_and_is_compared_with_eager():
    plain, graphs = workloads.WORKLOADS["ppo"]("cpu", tiny=True).values()
    seen = []
    workload = plain()
    assert workload.run(seen.append) > 0
    assert seen == [
        "roll out", "log-probabilities and values", "reward", "credit", "update and average",
    ]  # fmt: skip
    compared = phases.check("ppo", workload)["tolerances"]
    assert {"value_loss", "gradient_norm", "generation_difference"} <= set(compared)
    with pytest.raises(NotImplementedError, match=r"without a GPU"):
        graphs()


def test_a_wrong_iteration_is_not_timed(monkeypatch):
    right, runs = ppo.gae, []

    def wrong_at_first(rewards, values, mask, **options):
        runs.append(None)
        advantages, returns = right(rewards, values, mask, **options)
        return advantages, returns * (1.5 if len(runs) == 1 else 1.0)

    monkeypatch.setattr(ppo, "gae", wrong_at_first)
    plain, _ = workloads.WORKLOADS["ppo"]("cpu", tiny=True).values()
    with pytest.raises(GateError, match="value_loss"):
        phases.check("ppo", plain())
