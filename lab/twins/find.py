"""Twins by name: of the catalogue, or a user's own as "package.module:NAME".

`NAME` is what `gptwin.twin(...)` returned. Its module is imported as Python does it, from the
current folder too; so another process, which has the name alone, finds the same twin.
"""

import functools
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from ...core.checks import refuse
from ..settings import read_settings
from .catalogue import TWINS
from .twin import Twin

# Twins that are checked under a name which nobody else could import (`gptwin.check`).
nameless: dict[str, Twin] = {}


def find_twin(name: str, *, try_it: bool = True) -> Twin:
    """Find a twin.

    Parameters
    ----------
    name : str
    try_it : bool
        Run a user's own once, to see what it launches; not where nothing can run.

    Returns
    -------
    Twin

    Raises
    ------
    ValueError
        If there is none of that name.
    RuntimeError
        If the user's module cannot be imported.
    """
    if name in nameless:
        return nameless[name]
    if name in TWINS:
        return TWINS[name]
    if not is_own(name):
        refuse(
            "operation",
            f"one of {', '.join(TWINS)}, or package.module:NAME of a twin of your own",
            repr(name),
        )
    return _imported(name, try_it)


def is_own(name: str) -> bool:
    """Say whether a name is of a user's own twin.

    Parameters
    ----------
    name : str

    Returns
    -------
    bool
    """
    module, colon, attribute = name.partition(":")
    return bool(colon and attribute.isidentifier() and not module.endswith(".py"))


def expect_twins(names: Iterable[str]) -> None:
    """Refuse names without a twin.

    Parameters
    ----------
    names : iterable of str

    Raises
    ------
    ValueError, RuntimeError
        As `find_twin`.
    """
    for name in names:
        find_twin(name)


def _declared(name: str) -> Any:
    """Import what `gptwin.twin(...)` returned."""
    path, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(path)
    except Exception as error:  # whatever a person's module raises
        raise RuntimeError(f"{name}: importing {path} raised {error!r}") from error
    found = getattr(module, attribute, None)
    if not hasattr(found, "as_twin"):
        twins = [n for n, value in vars(module).items() if hasattr(value, "as_twin")]
        refuse(
            name,
            f"a twin that {path} declares with gptwin.twin(...): {', '.join(twins) or 'none'}",
            "nothing of that name" if found is None else f"a {type(found).__name__}",
        )
    return found


@functools.cache
def _imported(name: str, try_it: bool) -> Twin:
    configs = read_settings().configs
    return _declared(name).as_twin(name, try_it=try_it, configs=configs)
