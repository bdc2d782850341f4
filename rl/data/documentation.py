"""Real text that every Python brings along: the embedded default for pretraining.

Python's own reference documentation (`pydoc_data.topics`), and the docstrings and comments of the
standard library's modules: a few megabytes of technical English, with no download.
"""

import ast
import functools
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path


def language_reference() -> list[str]:
    """Return the topics of Python's `help()`.

    Returns
    -------
    list of str
        One text a topic, in the order of their names.
    """
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def library_docstrings() -> list[str]:
    """Return what the standard library's top-level modules say of themselves.

    Returns
    -------
    list of str
        One text a module: the docstrings of the module, its classes and functions.
    """
    library = Path(sysconfig.get_path("stdlib"))
    texts = []
    for file in sorted(library.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8", errors="ignore"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in _statements(tree) if isinstance(node, documented)]
        docstrings = [text for node in nodes if (text := ast.get_docstring(node))]
        if docstrings:
            texts.append("\n\n".join(docstrings))
    return texts


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk a tree as `ast.walk` does, but into no expression: most nodes are in one."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        children = ast.iter_child_nodes(node)
        waiting.extend(child for child in children if not isinstance(child, ast.expr))
        yield node


@functools.cache
def documentation(held_out: int = 10) -> tuple[list[str], list[str]]:
    """Return the embedded corpus, read once a process.

    Parameters
    ----------
    held_out : int
        Every so-manieth text is kept for validation.

    Returns
    -------
    training, validation : list of str
    """
    # Some topics of `help()` have two names. We keep each text once, so none is in both splits.
    texts = list(dict.fromkeys(language_reference() + library_docstrings()))
    training = [text for i, text in enumerate(texts) if i % held_out]
    return training, texts[::held_out]
