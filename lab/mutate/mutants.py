"""Mutants: every small fault that could be made in a kernel, derived from its syntax tree.

A mutant is one edit of one expression, by one of the operators in `mutation_operators`. Each is a
way in which kernels go wrong in practice: a bound off by one, a forgotten mask, a factor that is
not applied. Mutated are the functions under `triton.jit`, whole, and what the host functions around
them hand over.

What can change no result is left alone: hints (`num_stages`, `eviction_policy`, ...), assertions
and annotations; and so is what no test at a size for a laptop can see, int64 for positions
(tests/kernels/test_offsets.py is for that).
"""

import ast
import dataclasses
import difflib
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .operators import Edits, Operators, SourceText, edited

# Calls that the compiler alone looks at, or that end a program rather than change its results.
IGNORED_CALLS = {
    "multiple_of", "max_contiguous", "max_constancy", "assume", "static_assert", "device_assert",
    "static_print", "debug_barrier", "refuse",
}  # fmt: skip
IGNORED_STARTS = ("check_", "expect_")  # they refuse arguments, and compute nothing
IGNORED_KEYWORDS = {
    "num_warps", "num_stages", "eviction_policy", "cache_modifier", "volatile", "axis", "device",
    "dtype", "warp_specialize", "flatten", "loop_unroll_factor", "disallow_acc_multi_buffer",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes
    ----------
    file : str
        Relative to the package, such as "kernels/layers/softmax.py".
    function : str
        Where in it, such as "softmax_forward_kernel" or "_Softmax.backward".
    operator : str
        The kind of fault.
    original, replacement : str
        The expression before and after, white space made even.
    occurrence : int
        Which one, if the function has several alike; from 0.
    lines : tuple of int
        First and last line of the statement (of its head, if it contains others).
    in_kernel : bool
        Whether the function is `triton.jit`'s.
    edits : tuple
        What is replaced in the file's bytes.
    """

    file: str
    function: str
    operator: str
    original: str
    replacement: str
    occurrence: int
    lines: tuple[int, int]
    in_kernel: bool
    edits: Edits

    @property
    def identity(self) -> str:
        """Name the mutant; it keeps its name while lines move and the rest of the file changes."""
        return (
            f"{self.file} {self.function} | {self.operator} | "
            f"{self.original} -> {self.replacement} | {self.occurrence}"
        )

    @property
    def name(self) -> str:
        """The identity, of a user's file by its name alone: the same wherever the project lies."""
        file = Path(self.file)
        short = self.identity.replace(self.file, file.name, 1)
        return short if file.is_absolute() else self.identity

    def apply(self, source: str) -> str:
        """Make the fault.

        Parameters
        ----------
        source : str
            The file from which the mutant was derived.

        Returns
        -------
        str
        """
        return edited(source.encode(), self.edits).decode()

    def diff(self, source: str) -> str:
        """Show the fault.

        Parameters
        ----------
        source : str
            The file from which the mutant was derived.

        Returns
        -------
        str
            A unified diff with one line of context.
        """
        before, after = source.splitlines(), self.apply(source).splitlines()
        return "\n".join(
            difflib.unified_diff(before, after, self.file, self.file, lineterm="", n=1)
        )


def derive(path: Path, file: str) -> list[Mutant]:
    """List all mutants of one file.

    Parameters
    ----------
    path : Path
        Where the file lies.
    file : str
        What mutants call it.

    Returns
    -------
    list of Mutant
        In the order of the file; no two of them have the same effect.
    """
    return derive_from_source(source_of(path), file)


@functools.cache
def source_of(path: Path) -> str:
    """Read a file once: edits must fit even if it is changed meanwhile.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
    """
    return path.read_text(encoding="utf-8")


def derive_from_source(source: str, file: str) -> list[Mutant]:
    """List all mutants of a file's text; see `derive`.

    Parameters
    ----------
    source : str
        The text.
    file : str
        What mutants call it.

    Returns
    -------
    list of Mutant
    """
    tree, text = ast.parse(source), SourceText(source)
    found = []
    alike: Counter[tuple[str, ...]] = Counter()
    for name, function in _functions(tree):
        in_kernel = is_kernel(function)
        accumulators = frozenset(_accumulators(function)) if in_kernel else frozenset()
        effects = set()
        for node, lines, inside in _expressions(function):
            operators = Operators(text, in_kernel, accumulators, inside)
            for operator, whole, edits in operators.faults(node):
                effect = (lines, text.edited_lines(lines, edits))
                if effect in effects:
                    continue
                effects.add(effect)
                before, after = text.edited(whole, ()), text.edited(whole, edits)
                ast.parse(after if isinstance(node, ast.stmt) else f"({after})")
                key = (name, operator, before, after)
                mutant = Mutant(
                    file, name, operator, before, after, alike[key], lines, in_kernel, edits
                )
                alike[key] += 1
                found.append(mutant)
    return found


# --- which functions, and which of their expressions ----------------------------------------------


def is_kernel(function: ast.FunctionDef) -> bool:
    """Say whether a function is compiled by Triton.

    Parameters
    ----------
    function : ast.FunctionDef

    Returns
    -------
    bool
    """
    return any("triton.jit" in ast.unparse(d) for d in function.decorator_list)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield what is mutated: kernels, and the host functions that launch or compose them."""
    found = [(node.name, node) for node in tree.body if isinstance(node, ast.FunctionDef)]
    composes = not any(is_kernel(function) for _, function in found)
    for name, function in found:
        calls = {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
        launches = {"launch", "triton.cdiv"} & calls or _launches_plainly(function)
        registered = any("registered" in ast.unparse(d) for d in function.decorator_list)
        if "eager" in name or name.startswith("check_"):
            continue
        if is_kernel(function) or launches or registered or composes:
            yield name, function
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and "Function" in " ".join(map(ast.unparse, node.bases)):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name in ("forward", "backward"):
                    yield f"{node.name}.{method.name}", method


def _launches_plainly(function: ast.FunctionDef) -> bool:
    """Say whether a function launches as Triton has it, `kernel[grid](...)`."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Subscript) for called in calls)


def _expressions(
    function: ast.FunctionDef,
) -> Iterator[tuple[ast.AST, tuple[int, int], tuple[str, ...]]]:
    """Yield each expression of a function, its statement's lines, and the calls it stands in."""

    def walk(node: ast.AST, lines: tuple[int, int], inside: tuple[str, ...]) -> Iterator:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            lines = (node.lineno, last or node.lineno)
            if isinstance(node, (ast.Raise, ast.Assert)) or _is_docstring(node):
                return
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in IGNORED_CALLS or called.startswith(IGNORED_STARTS):
                return
            if "eager" in called:  # no kernel is among what it calls
                return
            yield node, lines, inside
            inside = (*inside, called)
        else:
            yield node, lines, inside
        for name, child in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(
                node, ast.Call
            ):
                continue
            for part in child if isinstance(child, list) else [child]:
                if isinstance(part, ast.keyword):
                    if part.arg not in IGNORED_KEYWORDS:
                        yield from walk(part.value, lines, (*inside, f"{part.arg}="))
                elif isinstance(part, ast.AST):
                    place = f"{type(node).__name__}.{name}"
                    yield from walk(part, lines, (*inside, place))

    for statement in function.body:
        yield from walk(statement, (statement.lineno, statement.lineno), ())


def _accumulators(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value)
            if made.startswith(("tl.zeros(", "tl.full(")) and "tl.float32" in made:
                yield ast.unparse(node.targets[0])


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
