"""What `gptwin prove` is asked about: twins by name, a user's own, kernels of a file."""

from ...core.checks import refuse
from ...kernels.common import launch
from ..sanitize.drivers import find_drivers, is_file, load
from ..twins.catalogue import TWINS
from ..twins.find import find_twin, is_own


def expand(names: list[str]) -> list[str]:
    """Check the names of what is to be proved.

    Parameters
    ----------
    names : list of str
        Twins of the catalogue, a user's own as package.module:NAME, or file.py::kernel.

    Returns
    -------
    list of str
        The names; all twins of the catalogue if none were given.

    Raises
    ------
    ValueError
        If there is no such twin, file or kernel.
    RuntimeError
        If a user's file cannot be imported.
    """
    for name in names:
        path, _, kernel = name.partition("::")
        if is_file(name):
            with launch.evaluating():
                find_drivers(load(path, compiled=True), path, kernel, None)
        elif is_own(name):
            find_twin(name, try_it=False)
        elif name not in TWINS:
            known = ", ".join(TWINS)
            refuse(
                "operation",
                f"one of {known}, package.module:NAME of a twin of your own, or "
                "path/to/file.py::kernel",
                repr(name),
            )
    return names or list(TWINS)
