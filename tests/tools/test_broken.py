"""A break is judged by what it changes, and never by an error of its own."""

import importlib
import os
import signal
import sys

from .broken import Break, in_fork

RULE = "core/layers/softmax.py"
CHANGE = Break(RULE, '"""Softmax: scores', '"""Broken softmax: scores')


def caption() -> str:
    sys.modules.pop("gptwin.core.layers.softmax", None)
    return importlib.import_module("gptwin.core.layers.softmax").__doc__ or ""


def test_a_break_is_seen_in_its_fork_alone() -> None:
    assert in_fork(CHANGE, caption).said.startswith("Broken softmax")
    assert in_fork(None, caption).said.startswith("Softmax")


def test_a_break_that_says_nothing_is_an_error() -> None:
    assert "write this break anew" in in_fork(CHANGE._replace(old="not there"), caption).error
    assert "nothing has imported" in in_fork(CHANGE, lambda: "noticed").error


def test_what_a_fork_dies_of_is_told_from_what_it_says() -> None:
    ended = in_fork(None, lambda: os.kill(os.getpid(), signal.SIGKILL) or "")
    assert ended.signal == signal.SIGKILL
    assert "KeyError" in in_fork(None, lambda: {}["nothing"]).error
