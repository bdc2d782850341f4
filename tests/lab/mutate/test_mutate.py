"""`gptwin mutate`: the faults it makes, the judge of each, what it keeps, what it prints."""

import dataclasses
import functools
import json
from collections import Counter

import pytest
import torch

from gptwin.kernels.common.launch import INTERPRETED
from gptwin.lab.mutate import console, equivalent, mutate
from gptwin.lab.mutate import judge as mutation_judge
from gptwin.lab.mutate.mutants import derive_from_source
from gptwin.lab.store import read_rows
from gptwin.lab.twins.catalogue import TWINS

interpreted = pytest.mark.skipif(not INTERPRETED, reason="mutants are judged in the interpreter")
on_the_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="children are forked")

KERNEL = '''
@triton.jit
def kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Sum 3 things."""
    {}
'''


def faults(statement):
    """All faults of one statement of a kernel: (operator, what the expression becomes)."""
    mutants = derive_from_source(KERNEL.format(statement), "kernels/x.py")
    return [(m.operator, m.replacement) for m in mutants]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "inside = at < n",
            [
                ("comparison flipped", "at >= n"),
                ("bound off by one", "at <= n"),
                ("bound off by one", "at < n - 1"),
            ],
        ),
        (
            "for start in range(first, n, BLOCK): pass",
            [
                ("bound off by one", "range(first, n - 1, BLOCK)"),
                ("bound off by one", "range(first + 1, n, BLOCK)"),
            ],
        ),
        (
            "x = tl.load(x_ptr, mask=inside, other=0.0)",
            [
                ("offset shifted", "tl.load(x_ptr + 1, mask=inside, other=0.0)"),
                ("mask dropped", "tl.load(x_ptr)"),
                ("other changed", "tl.load(x_ptr, mask=inside, other=1.0)"),
            ],
        ),
        (
            "tl.store(y_ptr, y, mask=a & b)",
            [
                ("offset shifted", "tl.store(y_ptr + 1, y, mask=a & b)"),
                ("mask dropped", "tl.store(y_ptr, y)"),
                ("operator replaced", "a | b"),
                ("mask dropped", "a"),
                ("mask dropped", "b"),
            ],
        ),
        (
            "y = (a + b) - c",
            [
                ("operator replaced", "(a + b) + c"),
                ("operands swapped", "(c) - (a + b)"),
                ("operator replaced", "a - b"),
            ],
        ),
        ("y = tl.dot(a, b)", [("operands swapped", "tl.dot(b, a)")]),
        (
            "y = tl.where(c, a, -inf)",
            [
                ("operands swapped", "tl.where(c, (-inf), a)"),
                ("operator replaced", "inf"),
            ],
        ),
        ("y = a * rescale", [("operator replaced", "a + rescale"), ("rescale removed", "a")]),
        ("y = a * scale", [("operator replaced", "a + scale"), ("scale forgotten", "a")]),
        (
            "y += a",
            [("operator replaced", "y -= a"), ("sum overwritten", "y = a")],
        ),
        ("x = x.to(tl.float32)", [("precision lowered", "tl.float16")]),
        ("y = a + 2", [("operator replaced", "a - 2"), ("constant changed", "3")]),
        ("y = tl.maximum(a, b)", [("operator replaced", "tl.minimum(a, b)")]),
        ("n_tiles = tl.cdiv(n, BLOCK)", [("bound off by one", "tl.cdiv(n, BLOCK) - 1")]),
        ("return a, b", [("arguments swapped", "b, a")]),
        ("y = seen(a, b)", [("arguments swapped", "b, a")]),
        # Nothing that changes no result, and no tile that does not compile.
        ("tl.static_assert(n > 2)", []),
        ("at = tl.arange(0, BLOCK)", []),
        ("y = tl.sum(x, axis=1)", []),
        ("x = tl.zeros([16, 32], tl.float32)", []),
        ("x = tl.load(x_ptr[:, None])", [("offset shifted", "tl.load(x_ptr[:, None] + 1)")]),
        ("rows = at.to(tl.int64)", []),
    ],
)
def test_each_operator_makes_exactly_these_faults(statement, expected):
    assert Counter(faults(statement)) == Counter(expected)


def test_an_accumulator_is_lowered_where_it_is_added_to():
    loop = "s = tl.zeros([4], tl.float32)\n    for i in range(n):\n        s += f(i)"
    assert ("accumulator lowered", "s = (s + f(i)).to(tl.float16)") in faults(loop)


def test_host_functions_are_broken_where_they_hand_over():
    source = (
        "@triton.jit\ndef kernel(a, b): pass\n"
        "def start(a, b, n):\n"
        "    if n < 3: raise ValueError(n + 1)\n"
        "    launch(kernel, (triton.cdiv(n, 4),), a, b, n)\n"
        "    launch(kernel, (n,), strided(a), strided(b))\n"
        "def other(a): return a + 1\n"
        "def start_eager(a): return launch(a, 1, a, a + 2)\n"
    )
    found = {(m.function, m.operator, m.replacement) for m in derive_from_source(source, "f.py")}
    assert found == {
        ("start", "bound off by one", "triton.cdiv(n, 4) - 1"),
        ("start", "constant changed", "5"),
        ("start", "arguments swapped", "b, a"),
        ("start", "arguments swapped", "n, b"),
        ("start", "arguments swapped", "strided(b), strided(a)"),
    }


def test_a_mutant_keeps_its_name_when_lines_move():
    before = KERNEL.format("y = a - b\n    z = a - b")
    after = '"""Züge."""\n\n# a remark\n' + before.replace("z = a - b", "z = (a -\n b)  # here")
    names = [[m.identity for m in derive_from_source(s, "kernels/x.py")] for s in (before, after)]
    assert names[0][0] == "kernels/x.py kernel | operator replaced | a - b -> a + b | 0"
    assert names[0] == names[1] and len(set(names[0])) == 4
    second = derive_from_source(after, "kernels/x.py")[2]
    assert second.apply(after) == after.replace("z = (a -\n b)", "z = (a +\n b)")


def test_names_are_unique_and_every_mutant_belongs_to_one_twin():
    names = [m.identity for mutants in mutate.mutants_by_twin().values() for m in mutants]
    assert len(names) == len(set(names)) > 5000
    assert all(mutate.mutants_by_twin().values())
    # Shared by many, judged by the simplest of them.
    users = [
        n for n, t in TWINS.items() if ("common/column_sum", "column_sum_kernel") in reached(t)
    ]
    assert {"layer_norm", "linear", "whiten"} <= {*users}
    (owner,) = {
        name
        for name, mutants in mutate.mutants_by_twin().items()
        if any(m.function == "column_sum_kernel" for m in mutants)
    }
    assert owner == min(users, key=lambda name: len(reached(TWINS[name])))


def test_a_menus_function_is_reached_by_an_attribute_of_its_name_alone():
    """instead.py in kernels/hopper/ has a global `attention`: that is no `parts.attention`."""
    found = {name for module, name in reached(TWINS["decoder_block"]) if "decoder" in module}
    assert "_qkv_attention" in found and "_attention_output" not in found


def reached(twin):
    return mutate.reached_functions(twin)


def test_a_sample_has_every_kind_of_fault_and_stays_as_it_was():
    mutants = mutate.mutants_by_twin()["softmax"]
    chosen = mutate.sample(mutants, 30, 0)
    assert len(chosen) == 30
    assert {m.operator for m in chosen} == {m.operator for m in mutants}
    assert chosen == mutate.sample(mutants, 30, 0) != mutate.sample(mutants, 30, 1)
    assert len(set(chosen) - set(mutate.sample(mutants[5:], 30, 0))) <= 5


def test_every_mutant_listed_as_equivalent_exists_and_has_a_reason():
    names = {m.identity for mutants in mutate.mutants_by_twin().values() for m in mutants}
    listed = equivalent.load_equivalent()
    assert not listed.keys() - names, "the kernel has changed: judge these anew"
    assert all(len(reason) > 20 for reason in listed.values())


def test_the_second_judge_was_asked_of_every_mutant_listed_as_equivalent():
    rows = read_rows(equivalent.EQUIVALENT_FILE.with_suffix(".jsonl"))["rows"]
    asked, ask = (
        {row["mutant"] for row in rows},
        "gptwin mutate --listed --json ...: docs/mutate.md",
    )
    assert asked == equivalent.load_equivalent().keys(), ask
    whys = {row["mutant"]: row["why"] for row in rows if row["said"] != "equivalent"}
    reasons = ("in an approximation", "changes roundings", "where two floats are equal")
    assert all(any(reason in why for reason in reasons) for why in whys.values()), whys


# --- the judge ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def softmax():
    """The twin with a single corner, so that its cases take no time."""
    twin = TWINS["softmax"]
    few = {"corners": twin.corners[:1], "extremes": twin.extremes[:1], "dtypes": ("float32",)}
    return dataclasses.replace(twin, **few)


@pytest.fixture(scope="module")
def trials(softmax):
    return mutation_judge.make_trials(softmax, 1, 0)


def softmax_mutant(old, new):
    """A mutant of the softmax's backward pass that may be anything."""
    path = mutation_judge.KERNELS / "layers/softmax.py"
    source = path.read_bytes()
    at = source.index(old.encode(), source.index(b"def softmax_backward_kernel("))
    some = next(
        m
        for m in mutate.mutants_by_twin()["softmax"]
        if m.function == "softmax_backward_kernel" and m.operator == "scale forgotten"
    )
    return dataclasses.replace(some, edits=((at, at + len(old), new.encode()),))


def reaching(mutant, trials):
    """An empty batch, for one, launches nothing."""
    chosen = mutation_judge.relevant(mutant, trials)
    assert 1 < len(chosen) < len(trials)
    return chosen


def verdict_of(softmax, trials, *mutants):
    found = dict(mutation_judge.judge(softmax, list(mutants), trials, processes=2))
    return [found[mutant] for mutant in mutants]


@on_the_cpu
def test_the_judge_tells_a_mutant_from_the_kernel(softmax, trials):
    forgotten = softmax_mutant(" * scale\n", "\n")
    unchanged = softmax_mutant(" * scale\n", " * scale\n")
    outside = softmax_mutant("mask=inside)\n\n\n", ")\n\n\n")
    refused = softmax_mutant("d_x = p", "d_x = undefined_name")
    verdicts = verdict_of(softmax, trials, forgotten, unchanged, outside, refused)
    assert [v.killed for v in verdicts] == [True, False, True, True]
    assert verdicts[0].why == "d_x beyond the budget"
    assert verdicts[0].case in [trial.name for trial in trials]
    assert verdicts[1].why == f"passed {len(reaching(forgotten, trials))} cases"
    assert "out of bounds" in verdicts[2].why
    assert "undefined_name" in verdicts[3].why
    # The parent still has the kernel as it was.
    assert all(v.killed is False for v in verdict_of(softmax, trials, unchanged))


@interpreted
def test_an_endless_loop_and_a_crash_count_as_killed(softmax, trials, monkeypatch):
    monkeypatch.setattr(mutation_judge, "GRACE_SECONDS", 0.2)
    endless = softmax_mutant("d_x = p", "while True: pass\n    d_x = p")
    crash = softmax_mutant("d_x = p", "import os; os.abort()\n    d_x = p")
    loop, end = verdict_of(softmax, trials, endless, crash)
    assert loop.killed and "endless loop" in loop.why
    assert end.killed and end.why == "crashed: SIGABRT"


@interpreted
def test_a_mutant_that_no_case_executes_survives(softmax, trials):
    unreached = dataclasses.replace(softmax_mutant("p *", "p +"), lines=(1, 1))
    (verdict,) = verdict_of(softmax, trials, unreached)
    assert not verdict.killed and verdict.why == "no case executes it"


# --- what is kept, and the score ------------------------------------------------------------------


def score(softmax, store, **changes):
    arguments = {"size": 4, "seed": 0, "examples": 1, "processes": 1} | changes
    return mutate.score_twin(softmax, known=mutate.KnownVerdicts(store), **arguments)


def test_a_survivor_in_a_shared_function_is_asked_of_the_other_twins(monkeypatch):
    """What cross_entropy leaves at 1, the temperature, linear_ppo_loss varies."""
    shared = ("language/token_scores", "_launch_d_logits")
    first, *others = mutate.users_of(*shared)
    assert first == "cross_entropy" and "linear_ppo_loss" in others
    asked = []

    def judged(twin, mutants, trials, processes):
        for mutant in mutants:
            asked.append((twin.name, mutant.function))
            killed = twin.name == "linear_ppo_loss"
            yield mutant, mutation_judge.Verdict(killed, "d_hidden beyond the budget", "", 0.0)

    monkeypatch.setattr(mutate, "make_trials", lambda *args: [])
    monkeypatch.setattr(mutate, "judge", judged)
    monkeypatch.setattr(mutate, "case_names", lambda *args: [])
    monkeypatch.setattr(mutate, "reasons_of", lambda *args: {})
    score = mutate.score_twin(
        TWINS["cross_entropy"], size=None, seed=0, examples=1, known=mutate.KnownVerdicts(None),
        processes=1,
    )  # fmt: skip
    assert ("linear_ppo_loss", shared[1]) in asked
    alone = {m.function for m in score.survivors}
    assert shared[1] not in alone and "cross_entropy" in " ".join(alone)


@interpreted
def test_a_second_run_judges_nothing_again(softmax, tmp_path, monkeypatch):
    store = tmp_path / "kept" / "verdicts.jsonl"
    first = score(softmax, store)
    assert len(first.verdicts) == 4 and first.killed
    with open(store, "a") as file:
        file.write('{"cut sho')  # a killed run's last line
    monkeypatch.setattr(mutate, "make_trials", None)
    assert score(softmax, store) == first
    with pytest.raises(TypeError):  # other mutants are judged
        score(softmax, store, size=5)


@interpreted
def test_verdicts_hold_while_the_file_and_the_cases_are_the_same(tmp_path, monkeypatch):
    (killed, survivor), cases = mutate.mutants_by_twin()["softmax"][:2], ["case a", "case b"]
    store = mutate.KnownVerdicts(tmp_path / "verdicts.jsonl")
    store.add("softmax", killed, cases, mutation_judge.Verdict(True, "wrong", "case a", 0.1))
    store.add("softmax", survivor, cases, mutation_judge.Verdict(False, "passed 2 cases", "", 0.1))
    store = mutate.KnownVerdicts(tmp_path / "verdicts.jsonl")
    find = functools.partial(store.find, "softmax")
    assert find(killed, cases).killed and not find(survivor, cases).killed
    assert store.find("attention", killed, cases) is None
    more = [*cases, "case c"]  # may kill the survivor; the other is dead already
    assert find(killed, more).killed and find(survivor, more) is None
    assert find(killed, ["case b"]) is None
    monkeypatch.setattr(mutate, "_source_hash", lambda mutant: "another file")
    assert find(killed, cases) is None


def test_the_score_leaves_out_equivalent_mutants_and_distrusts_the_list():
    mutants = mutate.mutants_by_twin()["softmax"][:4]
    killed, passed = (mutation_judge.Verdict(k, "", "", 0.0) for k in (True, False))
    verdicts = dict(zip(mutants, (killed, killed, passed, passed), strict=True))

    def of(*equivalent):
        reasons = {mutants[i].identity: "because" for i in equivalent}
        return mutate.Score("softmax", 9, verdicts, reasons)

    assert of().share == 0.5 and not of().passed
    assert of(2, 3).share == 1 and of(2, 3).passed
    assert of(0, 2, 3).contradicted == mutants[:1] and not of(0, 2, 3).passed


@interpreted
def test_the_command_prints_survivors_and_stores_scores(softmax, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TWINS, "softmax", softmax)
    out, table = tmp_path / "scores.json", tmp_path / "scores.md"
    out.write_text('{"rows": [{"twin": "gelu", "seed": 3}]}')
    some = mutate.mutants_by_twin()["softmax"]
    passed, killed = (mutation_judge.Verdict(k, "as told", "", 0.0) for k in (False, True))

    def judge(twin, mutants, trials, processes):
        return [(m, passed if m == some[0] else killed) for m in mutants]

    monkeypatch.setattr(mutate, "judge", judge)
    monkeypatch.setattr(mutate, "make_trials", lambda *args: [])
    monkeypatch.setattr(mutate, "reasons_of", lambda twin, mutants: {})
    status = console.mutate(["softmax"], store=str(tmp_path / "verdicts.jsonl"), json_file=str(out))
    printed = capsys.readouterr().out
    assert some[0].identity in printed
    assert f"+{some[0].apply(KERNEL_SOURCE).splitlines()[some[0].lines[0] - 1]}" in printed
    assert status == 0 and "every twin reaches it" in printed  # 1 of some 350
    stored = json.loads(out.read_text())
    assert [row["twin"] for row in stored["rows"]] == ["softmax", "gelu"]
    row = stored["rows"][0]
    assert row["survived"] == [some[0].identity]
    assert (row["run"], row["killed"]) == (len(some), len(some) - 1)
    assert row["seed"] == 0 and row["date"].startswith("20")
    out.write_text(json.dumps(stored | {"rows": stored["rows"][:1]}))
    console.mutate(
        ["softmax"], size=1, store=str(tmp_path / "verdicts.jsonl"), json_file=str(out),
        table_file=str(table),
    )  # fmt: skip
    assert f"| softmax | {len(some)} | 1 |" in table.read_text()
    second = {"a": "alive: d_x[0], at softmax.py:9", "b": "equivalent: proved equal in 3 runs"}
    row |= {"twin": "proved", "second": second}
    (line,) = [x for x in console._markdown([row]).splitlines() if x.startswith("| proved ")]
    assert line.split(" | ")[4:7] == ["1", "1", "0"]  # survived, one of them by prove alone, listed


KERNEL_SOURCE = (mutation_judge.KERNELS / "layers/softmax.py").read_text(encoding="utf-8")


@interpreted
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ["sofmax"]}, "operation: expected one of softmax"),
        ({"size": 0}, "sample: expected at least 1, got 0"),
        ({"examples": 0}, "examples: expected at least 1, got 0"),
        ({"processes": 0}, "processes: expected at least 1, got 0"),
        ({"json_file": "/no/such/x.json"}, "json: expected a file in a directory that exists"),
        ({"table_file": "x.md"}, "table: expected --json beside it"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        console.mutate(**{"operations": []} | arguments)


@interpreted
def test_a_twin_that_fails_as_it_is_is_not_judged(softmax):
    @functools.wraps(softmax.kernel)
    def twice(x, **options):
        return 2 * softmax.kernel(x, **options)

    broken = dataclasses.replace(softmax, kernel=twice)
    with pytest.raises(RuntimeError, match="expected softmax to pass its own checks"):
        mutation_judge.make_trials(broken, 1, 0)
