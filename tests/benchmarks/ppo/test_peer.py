"""`gptwin bench trl`: what counts as a product, and who takes turns. No test asserts a time."""

import os
import subprocess

import pytest
import torch
import torch._inductor.config
from torch.nn import functional

from gptwin.benchmarks import result_file
from gptwin.benchmarks.ppo import agreement, peer
from gptwin.benchmarks.ppo.bare_products import Recording, replay
from gptwin.benchmarks.timing import judge
from gptwin.rl.studies.workloads import ppo_like, ppo_repeated


def test_products_are_recorded_forward_and_backward_and_can_be_played_again():
    x, w = torch.randn(5, 3), torch.randn(3, 7, requires_grad=True)
    query = torch.randn(2, 1, 4, 8, requires_grad=True)
    with Recording() as recording:
        (x @ w).sum().backward()
    assert recording.flops == 2 * (2 * 5 * 3 * 7)  # x needs no gradient
    assert len(recording.products) == 2
    with Recording() as recording, torch.no_grad():
        torch.mm(x, w, out=torch.empty(5, 7)).addmm_(x, w)
    assert recording.flops == 2 * (2 * 5 * 3 * 7)
    with Recording() as recording:
        functional.scaled_dot_product_attention(query, query, query).sum().backward()
    assert recording.flops == (2 + 5) * (2 * 2 * 4 * 4 * 8)
    replay(recording.products)()


def test_a_value_network_costs_its_own_training():
    """Every product is seen: the flops that a shared trunk spares, to the last one."""
    shape = peer.shape_of(quick=True)
    flops = []
    for name in ("gptwin", "gptwin, shared trunk"):
        with Recording() as recording:
            peer._workload(ppo_like, shape, name).run(lambda phase: None)
        flops.append(recording.flops)
    time, asking = shape.n_prompt + shape.n_response - 1, shape.n_response
    projections = 6 * 16**2 * time + 18 * 16**2 * asking  # queries, keys and values; all else
    attention = 2 * 16 * asking * time  # a product: two forward, five backward
    judging, learning = projections + 2 * attention, 3 * projections + 7 * attention
    assert flops[0] - flops[1] == shape.batch * (judging + shape.epochs * learning)


def test_what_fails_leaves_the_last_measurement(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ImportError("no trl")

    monkeypatch.setattr(result_file, "RESULTS", tmp_path)
    monkeypatch.setattr(peer, "_alone", fail)
    result_file.save(tmp_path / "ppo-cpu.jsonl", "ppo", {"environment": {}, "findings": []})
    before = (tmp_path / "ppo-cpu.jsonl").read_text()
    assert peer.bench(ppo_like, ppo_repeated, threads=1) == 1
    assert (tmp_path / "ppo-cpu.jsonl").read_text() == before
    assert "no trl" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"^threads: expected a finite number above 0, got 0"):
        peer.bench(ppo_like, ppo_repeated, threads=0)


def test_what_is_printed_beside_the_measurement_is_kept(capfd):
    messages = []
    peer._alone(messages, print, "hello")
    with pytest.raises(subprocess.CalledProcessError):  # what is not Python prints, too
        peer._alone(messages, subprocess.check_call, ["sh", "-c", "echo oh; echo no >&2; exit 3"])
    assert messages == ["hello\n", "oh\nno\n"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [False, True])
def test_the_command_stores_where_it_is_told_and_prints_the_table_alone(
    tmp_path, monkeypatch, capsys, verbose
):
    claim = peer.CLAIMS[0]
    found = judge(claim, {claim.ours: [1.0, 1.0], claim.other: [2.0, 2.0]}, {"phases": {}})

    def pretend(messages, function, *_):
        messages.append("FutureWarning: something of theirs\n")
        return {agreement.agreement: {}, peer._times: [found], peer._peak: 7}[function]

    monkeypatch.setattr(result_file, "RESULTS", tmp_path / "never")
    monkeypatch.setattr(peer, "_alone", pretend)
    out = tmp_path / "mine.jsonl"
    options = {"threads": 1, "out": str(out), "verbose": verbose}
    assert peer.bench(ppo_like, ppo_repeated, **options) == 0
    (kept,) = result_file.load(out)["ppo"]["findings"]
    assert kept["value"]["median"] == 2.0 and os.listdir(tmp_path) == [out.name]
    assert ("FutureWarning" in capsys.readouterr().out) == verbose


def test_phases_are_summed_and_the_first_iteration_does_not_count():
    turn = peer._Turn()
    for _ in range(3):
        turn.mark("a")
        turn.mark("b")
        turn.mark("a")
        turn.end()
    assert len(turn.seconds()) == 2
    assert list(turn.medians()) == ["a", "b"]


def test_trls_iteration_is_ours_and_what_makes_it_another_is_found(monkeypatch):
    pytest.importorskip("trl")
    shape = peer.agreeing(quick=True)
    observed = agreement.observed_whole(shape)
    found = agreement.compared(observed, shape, ppo_repeated)
    assert found.keys() == set(agreement.STATISTICS.values())
    assert found["approx_kl"]["gptwin"] > 1e-4  # so the policy has learned, and both the same
    for change in ({"gae_lambda": 0.94}, {"lr": 9e-4}, {"kl_coefficient": 0.051}):
        with pytest.raises(RuntimeError, match="they do not do the same work"):
            agreement.compared(observed, shape, ppo_repeated, **change)

    monkeypatch.setattr(agreement, "observed_whole", lambda shape: observed)
    ways: dict = {"plain": {}, "again": {}}
    for values in agreement.agreement(shape, ppo_repeated, ways).values():
        assert list(values) == ["TRL", *ways]
    ways["again"] |= {"lr": 9e-4}
    with pytest.raises(RuntimeError, match="they do not do the same work"):
        agreement.agreement(shape, ppo_repeated, ways)
