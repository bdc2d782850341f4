"""A mixture's plan, and which windows it draws."""

import json
from pathlib import Path

import numpy as np
import pytest

from gptwin.rl.corpus.draws import Mixture, Stream, largest_remainder
from gptwin.rl.corpus.mixture import Set, described, plan, plan_sets, read_mixture, read_texts

TABLE_2_2 = {  # billions of tokens, and weights in per cent
    "Common Crawl": (410, 60), "WebText2": (19, 22), "Books1": (12, 8), "Books2": (55, 8),
    "Wikipedia": (3, 3),
}  # fmt: skip
SIZES = {name: size for name, (size, _) in TABLE_2_2.items()}
WEIGHTS = {name: weight for name, (_, weight) in TABLE_2_2.items()}


def test_gpt3s_epochs_follow_from_its_weights_and_are_not_those_it_prints():
    assert sum(WEIGHTS.values()) == 101
    # Normalised weights of 303 billion tokens are the printed ones of 300.
    epochs = [p.epochs for p in plan(SIZES, 303, weights=WEIGHTS)]
    np.testing.assert_allclose(epochs, [0.4390, 3.4737, 2.0, 0.4364, 3.0], atol=5e-5)
    printed = [0.44, 2.9, 1.9, 0.43, 3.4]
    assert max(abs(a - b) for a, b in zip(epochs, printed, strict=True)) > 0.5


def test_a_small_plan():
    planned = plan({"a": 1000, "b": 100}, 500, weights={"a": 0.6, "b": 0.4})
    assert [p.epochs for p in planned] == pytest.approx([0.3, 2.0])
    assert [p.tokens for p in planned] == pytest.approx([300, 200])


def test_epochs_say_the_weights():
    planned = plan({"a": 1000, "b": 100}, 500, epochs={"a": 0.3, "b": 2})
    assert [p.weight for p in planned] == pytest.approx([0.6, 0.4])
    # A run twice as long reads everything twice as often.
    twice = plan({"a": 1000, "b": 100}, 1000, epochs={"a": 0.3, "b": 2})
    assert [p.epochs for p in twice] == pytest.approx([0.6, 4.0])


def test_a_weight_of_0_leaves_a_set_out_and_the_sum_is_told():
    sets = [Set(name, Path(), weight, None) for name, weight in (("a", 2), ("b", 0), ("c", 4))]
    planned = plan_sets(sets, {"a": 10, "b": 10, "c": 10}, 60)
    assert [(p.name, round(p.weight, 3)) for p in planned] == [("a", 0.333), ("c", 0.667)]
    assert "summed to 6, and were divided by it" in described(planned, sets)
    assert "summed" not in described(planned, [Set("a", Path(), 1.0, None)])


@pytest.mark.parametrize(
    ("weights", "said"),
    [({"a": -1.0}, "weight of a: expected a finite number"), ({"a": 0.0}, "got all 0")],
)
def test_weights_without_a_meaning_are_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        plan({"a": 10}, 60, weights=weights)


@pytest.mark.parametrize(("n", "places"), [(16, [10, 4, 1, 1, 0]), (10, [6, 2, 1, 1, 0])])
def test_a_quota_for_each_batch_would_never_draw_the_smallest_set(n, places):
    assert largest_remainder(list(WEIGHTS.values()), n) == places


def test_draws_with_replacement_leave_a_third_unread():
    """What the formula e^−e says, and why an epoch here is without replacement."""
    rng = np.random.default_rng(0)
    for epochs, unread in ((0.44, 0.644036), (1, 0.367879), (3, 0.049787)):
        seen = np.zeros(20_000, bool)
        seen[rng.integers(0, len(seen), int(epochs * len(seen)))] = True
        assert 1 - seen.mean() == pytest.approx(unread, abs=0.01)


# --- the draw ------------------------------------------------------------------------------------


def documents(n, length, first):
    return [np.arange(first + i * length, first + (i + 1) * length) for i in range(n)]


def test_an_epoch_reads_every_token_once_and_the_next_in_another_order():
    stream = Stream(documents(20, 5, 0), seed=0, name="a")
    epochs = [
        np.concatenate([stream.window(e * 10 + k, 10)[:-1] for k in range(10)]) for e in range(2)
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(100))
    assert not np.array_equal(*epochs)
    # Documents stay whole, and a window goes on where the one before ended.
    assert all(
        b == a + 1 for a, b in zip(epochs[0][:-1], epochs[0][1:], strict=True) if (a + 1) % 5
    )
    assert stream.window(3, 10)[-1] == stream.window(4, 10)[0]


def test_a_set_smaller_than_a_window_begins_again_within_it():
    stream = Stream(documents(2, 3, 0), seed=0, name="a")
    assert len(stream.window(1, 10)) == 11
    counts = np.bincount(np.concatenate([stream.window(k, 6)[:-1] for k in range(4)]))
    assert counts.tolist() == [4] * 6


def test_a_mixture_draws_each_set_by_its_weight_over_the_run():
    streams = [Stream(documents(40, 5, 1000 * i), 0, name) for i, name in enumerate("abc")]
    weights, steps = (0.6, 0.37, 0.03), 50
    mixture = Mixture(streams, weights, time=4, batch_size=10, steps=steps, seed=0)
    windows = [w.tokens for step in range(steps) for w in mixture.batch(step)]
    drawn = np.bincount([tokens[0] // 1000 for tokens in windows])
    assert drawn.tolist() == [300, 185, 15]
    # A set's own windows come in its stream's order, so that none is skipped or read twice.
    small = [tokens for tokens in windows if tokens[0] >= 2000]
    assert small == [streams[2].window(k, 4).tolist() for k in range(15)]
    again = Mixture(streams, weights, time=4, batch_size=10, steps=steps, seed=0)
    assert again.batch(31) == mixture.batch(31)  # a step needs none before it
    other = Mixture(streams, weights, time=4, batch_size=10, steps=steps, seed=1)
    assert other.batch(31) != mixture.batch(31)


# --- files ---------------------------------------------------------------------------------------


def mixture_file(folder, text):
    (folder / "books").mkdir(exist_ok=True)
    (folder / "books/b.txt").write_text("second book")
    (folder / "books/a.jsonl").write_text('{"text": "first"}\n{"text": " "}\n{"text": "book"}\n')
    (folder / "books/readme.md").write_text("no text of the set")
    (folder / "web.jsonl").write_text(json.dumps({"text": "web"}) + "\n")
    path = folder / "mixture.toml"
    path.write_text(text)
    return path


def test_sets_are_files_and_folders(tmp_path):
    books, web = read_mixture(
        mixture_file(tmp_path, '[books]\npath="books"\nweight=3\n[web]\npath="web.jsonl"\nweight=1')
    )
    assert (books.weight, web.weight) == (3.0, 1.0)
    assert read_texts(books.path) == ["first", "book", "second book"]
    assert read_texts(web.path) == ["web"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a set at least"),
        ("[a", "expected TOML"),
        ("a = 3", r"\[a\] entries: expected path, and weight or epochs, got 3"),
        ('[a]\npath="books"', "expected path, and weight or epochs, got path"),
        ('[a]\npath="books"\nweight=1\nepochs=2', "path, and weight or epochs"),
        ('[a]\npath="books"\nwieght=1', "got path, wieght"),
        ('[a]\npath="books"\nweight="1"', "weight: expected a finite number"),
        ('[a]\npath="books"\nweight=-1', "weight: expected a finite number"),
        ('[a]\npath="none"\nweight=1', "path: expected a file of texts"),
        ('[a]\npath="books"\nweight=1\n[b]\npath="web.jsonl"\nepochs=1', "or epochs for every set"),
    ],
)
def test_a_bad_mixture_is_named(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_mixture(mixture_file(tmp_path, text))


def test_a_folder_without_texts_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"texts, in files that end in \.jsonl"):
        read_texts(tmp_path / "empty")
