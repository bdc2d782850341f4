"""Refusal of strange prompts: the right state, the share refused, and what is kept of it."""

import numpy as np
import tiny
import torch

from gptwin.core.dialogue.outliers import auroc
from gptwin.rl.agents.hh.outliers import fit_detector, load_detector, states


def test_the_state_is_the_one_before_the_answer_whatever_stands_beside():
    model, pad = tiny.gpt().eval(), tiny.template().pad
    prompts = [p.ids for p in tiny.prompts(6)]
    found = states(model, prompts, pad)
    for prompt, state in zip(prompts, found, strict=True):
        alone = model(torch.tensor([prompt]))[0, -1].detach().double().numpy()
        np.testing.assert_allclose(state, alone, atol=1e-4)


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(n, 1)) + 0.4 * rng.normal(size=(n, 5))
    return known, rng.normal(size=(n, 5))


def test_as_many_known_ones_are_refused_as_may_be():
    known, strange = drawn(0, 800)
    detector = fit_detector(known, 0.05)
    fresh, _ = drawn(1, 800)
    assert 0.02 < (detector.score(fresh) > detector.threshold).mean() < 0.1
    assert (detector.score(strange) > detector.threshold).mean() > 0.6


def test_nobody_known_is_refused_without_leave():
    known, _ = drawn(0, 400)
    detector = fit_detector(known, 0.0)
    assert not (detector.score(known[1::2]) > detector.threshold).any()


def test_outliers_that_were_shown_are_found_more_often():
    known, strange = drawn(2, 600)
    strange = strange + 1.0
    blind, shown = fit_detector(known, 0.05), fit_detector(known, 0.05, strange[:10])
    fresh, _ = drawn(3, 600)
    areas = [auroc(d.score(fresh), d.score(strange[10:])) for d in (blind, shown)]
    assert areas[1] > 0.6 and areas[0] > 0.6


def test_a_detector_is_read_as_it_was_written(tmp_path):
    known, strange = drawn(4, 100)
    for outliers in (None, strange[:3]):
        detector = fit_detector(known, 0.1, outliers)
        detector.save(tmp_path / "detector.json")
        again = load_detector(tmp_path / "detector.json")
        assert again.threshold == detector.threshold
        np.testing.assert_array_equal(again.score(strange), detector.score(strange))
