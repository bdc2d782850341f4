"""The sanitizer has teeth: each of its checks, broken, changes what is found in some kernel.

A mutant takes its function's place in this process, for one broken kernel and its mended form: less
than a second each.
"""

import ast
import contextlib
import functools
import runpy
import sys
from collections.abc import Iterator
from types import CodeType

import corpus
import pytest
from mutants import MUTANTS
from mutants_of_programs import OF_PROGRAMS

import gptwin
from gptwin.kernels.common import launch
from gptwin.lab.mutate.install import ROOT, function_of

CASES = {path.stem: path for path in corpus.BROKEN}

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)


def function_around(source: str, line: int) -> list[str]:
    """Name the outermost function or method that a line lies in."""
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef) and child.lineno <= line <= child.end_lineno:
                return [node.name, child.name] if isinstance(node, ast.ClassDef) else [child.name]
    raise AssertionError(f"line {line} lies in no function")


@contextlib.contextmanager
def broken(file: str, old: str, new: str) -> Iterator[None]:
    """Let a replacement of `old` by `new` be what this process runs, for a while."""
    source = (ROOT / file).read_text()
    assert source.count(old) == 1, f"{file} has changed: write this mutant anew"
    start = source.index(old)
    path = function_around(source, source[:start].count("\n") + 1 + old.startswith("\n"))
    module = sys.modules[".".join([gptwin.__name__, *file.removesuffix(".py").split("/")])]
    function = function_of(functools.reduce(getattr, path, module))
    before, function.__code__ = function.__code__, code_of(source.replace(old, new), file, path)
    try:
        yield
    finally:
        function.__code__ = before


def code_of(source: str, file: str, path: list[str]) -> CodeType:
    """Compile a file, and find the function's code in it."""
    code = compile(source, str(ROOT / file), "exec")
    for name in path:
        constants = (c for c in code.co_consts if isinstance(c, CodeType))
        code = next(c for c in constants if c.co_name == name)
    return code


def is_as_it_should_be(case: str) -> bool:
    """Say whether all is found in the broken kernel and nothing in the mended one."""
    try:
        pair = corpus.try_both(CASES[case])
        return pair.found == pair.planted and not pair.mended.violations
    except Exception:
        return False  # a mutant that raises is noticed, too


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_check_is_noticed(name: str) -> None:
    file, old, new, case = MUTANTS[name]
    with broken(file, old, new):
        assert not is_as_it_should_be(case), f"{case} is the same without this check"


@pytest.mark.parametrize("name", OF_PROGRAMS)
def test_a_broken_watch_of_programs_is_noticed(name: str) -> None:
    file, old, new, tests, call = OF_PROGRAMS[name]
    defined = runpy.run_path(str(corpus.HERE.parent / "sanitize" / tests))
    with (
        broken(file, old, new),
        pytest.raises((AssertionError, AttributeError, pytest.fail.Exception)),
    ):
        eval(call, defined)


@pytest.mark.parametrize("call", sorted({mutant[3:] for mutant in OF_PROGRAMS.values()}))
def test_the_judges_are_content_while_nothing_is_broken(call: tuple[str, str]) -> None:
    eval(call[1], runpy.run_path(str(corpus.HERE.parent / "sanitize" / call[0])))


def test_the_cases_are_right_while_nothing_is_broken() -> None:
    """Each is tested elsewhere, too; here we see that mutants were taken out again."""
    assert is_as_it_should_be("lost_update") and is_as_it_should_be("no_barrier")
